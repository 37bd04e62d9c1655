"""The records that travel between the stages.

Shapes, dtypes, units and the pixel origin are stated here, once:

- Keypoints are in pixels of the ORIGINAL image, x then y; the centre of the top-left pixel is (0, 0).
- Image sizes are (width, height), after the photo's EXIF orientation has been dealt with as COLMAP does it.
- N is the number of keypoints of an image, D the length of a descriptor, K the number of matches of a pair.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32]
LongArray = NDArray[np.int64]
ByteArray = NDArray[np.uint8]


@dataclass(frozen=True)
class ImageRef:
    """A photo that was found but not read. `name` is what every file calls it."""

    name: str
    """Path below the image folder, with forward slashes."""
    path: Path
    """Where the file is."""


class PhotoFile(NamedTuple):
    """The file of a photo, by which it is known again."""

    digest: int
    """A hash of 64 bits of all its bytes."""
    size: int
    """In bytes."""
    mtime_ns: int
    """When it was last changed, in nanoseconds since 1970."""


@dataclass(frozen=True)
class Photo:
    """A decoded photo, at the size that the extractor sees."""

    name: str
    pixels: ByteArray
    """(H, W, 3) uint8, RGB."""
    size: tuple[int, int]
    """(width, height) of the original image."""


@dataclass(frozen=True)
class Features:
    """The local features of one image."""

    keypoints: FloatArray
    """(N, 2) float32, x and y in pixels of the original image, top-left pixel centre (0, 0)."""
    scores: FloatArray
    """(N,) float32, the detector's own score, larger is better; rows are ordered by it, best first."""
    descriptors: FloatArray
    """(N, D) float32, each row of unit length."""
    image_size: tuple[int, int]
    """(width, height) of the original image."""
    scales: FloatArray | None = None
    """(N,) float32, SIFT's diameter of a keypoint, in pixels of the photo as the extractor saw it; others have none."""
    oris: FloatArray | None = None
    """(N,) float32, SIFT's orientation of a keypoint, radians in 0..2 pi, clockwise from x; others have none."""


class Pair(NamedTuple):
    """Two image names. (a, b) and (b, a) are the same pair; the first one met gives the order."""

    a: str
    b: str


@dataclass(frozen=True)
class Matches:
    """The matches of one pair."""

    indices: IntArray
    """(K, 2) int32, rows into the keypoints of the pair's first and second image; first column ascending."""
    scores: FloatArray
    """(K,) float32, the assignment probability in 0..1."""


@dataclass(frozen=True)
class Failure:
    """One item that a stage could not use."""

    stage: str
    name: str
    reason: str
    traceback: str = field(default="", repr=False, compare=False)
    """Where it happened, for the error ledger; summaries leave it out."""

    def format(self) -> str:
        """One line for the terminal, whatever bytes the name is of."""
        return escape(f"failed: {self.name} ({self.stage}): {self.reason}")


def escape(text: str) -> str:
    """The text on one line, with escapes for what a terminal cannot show or would obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
