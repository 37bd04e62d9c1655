"""Data types that the stages exchange.

Conventions:

- Keypoints are (x, y) in pixels of the ORIGINAL image; the centre of the top-left pixel is (0, 0).
- Image sizes are (width, height) of the pixels as stored: EXIF orientation is not applied, as in COLMAP.
- N is the number of keypoints of an image, D the descriptor dimension, K the number of matches of a pair.
"""

from dataclasses import dataclass, field
from pathlib import Path
from traceback import format_exception
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32]
LongArray = NDArray[np.int64]
ByteArray = NDArray[np.uint8]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class ImageRef:
    """A photo that is listed but not read."""

    name: str
    """Path relative to the image folder, with forward slashes. Identifies the image in every output file."""
    path: Path
    """Path of the file."""
    masks: tuple[Path, ...] = ()
    """Files of its masks."""


class PhotoFile(NamedTuple):
    """Identity of a photo's file and those of its masks, to detect that one has been replaced."""

    digest: int
    """64-bit hash of the whole file, and of the masks if there are any."""
    size: int
    """Size in bytes: the sum over the photo and its masks."""
    mtime_ns: int
    """Modification time in nanoseconds since 1970: the sum over the photo and its masks, modulo 2**64."""


@dataclass(frozen=True)
class Photo:
    """A decoded photo, resized for the extractor."""

    name: str
    pixels: ByteArray
    """(H, W, 3) uint8, RGB."""
    size: tuple[int, int]
    """(width, height) of the original image."""
    masks: tuple[BoolArray, ...] = ()
    """(h, w) bool of any scale, the whole image each: keypoints where one is False are dropped."""


@dataclass(frozen=True)
class Features:
    """The local features of one image."""

    keypoints: FloatArray
    """(N, 2) float32, x and y in pixels of the original image, top-left pixel centre (0, 0)."""
    scores: FloatArray
    """(N,) float32, detector scores, larger is better; the rows of all arrays are sorted by score, best first."""
    descriptors: FloatArray
    """(N, D) float32, L2-normalised rows."""
    image_size: tuple[int, int]
    """(width, height) of the original image."""
    scales: FloatArray | None = None
    """(N,) float32, SIFT keypoint diameters in pixels of the resized photo; None for other extractors."""
    oris: FloatArray | None = None
    """(N,) float32, SIFT keypoint orientations, radians in 0..2 pi, clockwise from x; None for other extractors."""


class Pair(NamedTuple):
    """Two image names. (a, b) and (b, a) are the same pair; the order is that of its first occurrence."""

    a: str
    b: str


@dataclass(frozen=True)
class Matches:
    """The matches of one pair."""

    indices: IntArray
    """(K, 2) int32, keypoint indices in the pair's first and second image; first column ascending."""
    scores: FloatArray
    """(K,) float32, assignment probabilities in 0..1."""


@dataclass(frozen=True)
class Failure:
    """A photo or pair that failed in a stage."""

    stage: str
    name: str
    reason: str
    traceback: str = field(default="", repr=False, compare=False)
    """Python traceback, for the ledger of failures; summaries omit it."""

    @classmethod
    def from_exception(cls, stage: str, name: str, error: Exception) -> Self:
        """Return the failure of an item that raised. The reason is the first line of the message, or the type."""
        reason = str(error).strip().partition("\n")[0][:300] or type(error).__name__
        return cls(stage, name, reason, "".join(format_exception(error)))

    def format(self) -> str:
        """Return one printable line, also for a name with control characters or invalid UTF-8."""
        return escape(f"failed: {self.name} ({self.stage}): {self.reason}")


def escape(text: str) -> str:
    """Escape line breaks, terminal control sequences and all other unprintable characters."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
