"""Data types that the stages exchange.

Conventions:

- Keypoints are (x, y) in pixels of the ORIGINAL image; the centre of the top-left pixel is (0, 0).
- Image sizes are (width, height) of the pixels as stored: EXIF orientation is not applied, as in COLMAP.
- Orientations are EXIF codes, 1 to 8: how to turn the stored pixels so that the photo is upright. 1: as stored; 3, 6
  and 8: rotate by 180, 90 and 270 degrees clockwise; 2, 4, 5 and 7: mirrored (photos/coordinates.py). Extraction and
  matching see the upright photo; all keypoints that are stored or exchanged are in pixels as stored.
- N is the number of keypoints of an image, D the descriptor dimension, K the number of matches of a pair.
"""

import unicodedata
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import eq
from pathlib import Path
from traceback import format_exception
from typing import Any, NamedTuple, Self, overload

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32]
LongArray = NDArray[np.int64]
ByteArray = NDArray[np.uint8]
BoolArray = NDArray[np.bool_]
ORIENTATIONS = range(1, 9)
"""EXIF codes of orientations."""


@dataclass(frozen=True)
class ImageRef:
    """A photo that is listed but not read."""

    name: str
    """Path relative to the image folder, with forward slashes. Identifies the image in every output file."""
    path: Path
    """Path of the file."""
    masks: tuple[Path, ...] = ()
    """Files of its masks."""
    orientation: int = 1
    """EXIF code, 1 to 8: how decoding turns the pixels upright."""


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
    """A decoded photo, turned upright and resized for the extractor."""

    name: str
    pixels: ByteArray
    """(H, W, 3) uint8, RGB, upright."""
    size: tuple[int, int]
    """(width, height) of the original image, as stored."""
    masks: tuple[BoolArray, ...] = ()
    """(h, w) bool of any scale, the whole image as stored each: keypoints where one is False are dropped."""
    orientation: int = 1
    """EXIF code, 1 to 8: how the stored pixels were turned to be `pixels`."""


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
    """(N,) float32, SIFT keypoint orientations in the image as stored, radians in 0..2 pi, clockwise from x; None for
    other extractors."""
    tile_side: int = 0
    """Side in pixels of the tiles that the photo was extracted in; 0 if as a whole, or if read from a store."""
    orientation: int = 1
    """EXIF code, 1 to 8: how the stored pixels were turned upright before extraction."""


class Pair(NamedTuple):
    """Two image names. (a, b) and (b, a) are the same pair; the order is that of its first occurrence."""

    a: str
    b: str


class PairList(Sequence[Pair]):
    """A sequence of pairs that takes 8 bytes a pair: all pairs of 5,000 images are 12.5 million.

    Equal to any sequence of the same pairs. Slices and selections share the names.
    """

    def __init__(self, names: Sequence[str], ids: IntArray) -> None:
        """`names` are distinct; `ids`, (P, 2) int32, are the positions in them of the images of each pair."""
        self.names, self.ids = names, ids

    @classmethod
    def of(cls, pairs: Iterable[Pair]) -> Self:
        """Return the pairs as such a list: themselves if they are one."""
        if isinstance(pairs, cls):
            return pairs
        positions: dict[str, int] = {}
        ids = array("i", (positions.setdefault(name, len(positions)) for pair in pairs for name in pair))
        return cls(list(positions), np.asarray(ids).reshape(-1, 2))

    def __len__(self) -> int:
        """The number of pairs."""
        return len(self.ids)

    @overload
    def __getitem__(self, item: int) -> Pair: ...
    @overload
    def __getitem__(self, item: slice) -> Self: ...
    def __getitem__(self, item: int | slice) -> Pair | Self:
        """Return a pair, or the pairs of a slice."""
        if isinstance(item, slice):
            return type(self)(self.names, self.ids[item])
        a, b = self.ids[item].tolist()
        return Pair(self.names[a], self.names[b])

    def __iter__(self) -> Iterator[Pair]:
        """Yield each pair."""
        name = self.names.__getitem__
        for rows in self._blocks():
            first, second = self.ids[rows].T.tolist()
            yield from map(Pair._make, zip(map(name, first), map(name, second), strict=True))

    def __eq__(self, other: object) -> bool:
        """Whether the other is a sequence of the same pairs in the same order and directions."""
        if not isinstance(other, Sequence):
            return NotImplemented
        if isinstance(other, PairList) and self.names == other.names:
            return np.array_equal(self.ids, other.ids)
        return len(self) == len(other) and all(map(eq, self, other))

    def __repr__(self) -> str:
        """The number of pairs, and the first ones."""
        return f"<{counted(len(self), 'pair')}: {', '.join(map(repr, self[:5]))}{', ...' * (len(self) > 5)}>"

    def lookup(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the value of each image of each pair, (P, 2); `values`, (N,), are those of the names."""
        found = np.empty((len(self), 2), values.dtype)
        for rows in self._blocks():
            found[rows] = values[self.ids[rows]]
        return found

    def uses(self) -> LongArray:
        """Return the number of pairs of each name, (N,)."""
        uses = np.zeros(len(self.names), np.int64)
        for rows in self._blocks():
            uses += np.bincount(self.ids[rows].ravel(), minlength=len(uses))
        return uses

    def images(self) -> list[str]:
        """Return the names that are in a pair."""
        return [self.names[i] for i in np.flatnonzero(self.uses()).tolist()]

    def between(self, images: Collection[str]) -> BoolArray:
        """Return of which pairs both images are among these, (P,)."""
        first, second = self.lookup(np.array([name in images for name in self.names], np.bool_)).T
        both: BoolArray = first & second
        return both

    def where(self, selected: BoolArray) -> Self:
        """Return the pairs for which `selected`, (P,), is True."""
        return self if selected.all() else type(self)(self.names, self.ids[selected])

    def repeats(self) -> tuple[LongArray, LongArray]:
        """Return the rows of pairs that are the same as an earlier one, in either order, and the first row of each."""
        keys = self.ids.min(1).astype(np.int64)
        keys *= len(self.names)
        keys += self.ids.max(1)
        keys_in_order = keys if (keys[1:] > keys[:-1]).all() else np.sort(keys)
        repeats = np.flatnonzero(keys_in_order[1:] == keys_in_order[:-1]) + 1
        if not len(repeats):  # saves the time and the memory that the order takes
            return repeats, repeats
        order = np.argsort(keys, kind="stable")
        return order[repeats], order[np.searchsorted(keys_in_order, keys_in_order[repeats])]

    def _blocks(self) -> Iterator[slice]:
        return (slice(start, start + 4096) for start in range(0, len(self), 4096))


@dataclass(frozen=True)
class Matches:
    """The matches of one pair."""

    indices: IntArray
    """(K, 2) int32, keypoint indices in the pair's first and second image; first column ascending."""
    scores: FloatArray
    """(K,) float32, assignment probabilities in 0..1."""


_MEMORY_SHORT = ("allocate memory", "bad_alloc", "bad allocation", "insufficient memory", "out of memory")
"""What ONNX Runtime, C++, OpenCV and CUDA say, in lower case, when an allocation fails."""


@dataclass(frozen=True)
class Failure:
    """A photo or pair that failed in a stage."""

    stage: str
    name: str
    reason: str
    traceback: str = field(default="", repr=False, compare=False)
    """Python traceback, for the ledger of failures; summaries omit it."""
    temporary: bool = field(default=False, compare=False)
    """The memory was short at that moment: the next run tries the item again."""

    @classmethod
    def from_exception(cls, stage: str, name: str, error: Exception) -> Self:
        """Return the failure of an item that raised. The reason is the first line of the message, or the type."""
        reason = str(error).strip().partition("\n")[0][:300] or type(error).__name__
        short = isinstance(error, MemoryError) or any(words in str(error).lower() for words in _MEMORY_SHORT)
        return cls(stage, name, reason, "".join(format_exception(error)), short)

    def format(self) -> str:
        """Return one printable line, also for a name with control characters or invalid UTF-8."""
        return escape(f"failed: {self.name} ({self.stage}): {self.reason}")


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: '1 pair', '2 pairs'. `plural` is the noun's plural if 's' does not form it."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def escape(text: str) -> str:
    """Escape line breaks, terminal control sequences and all other unprintable characters."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def name_problem(name: str) -> str | None:
    """Return why the stores, the pairs file or COLMAP cannot represent an image name, or None if they can."""
    if not name:
        return "the name is empty"
    categories = set() if name.isprintable() else {unicodedata.category(c) for c in name}
    if "Cs" in categories:  # Lone surrogates: Python decodes invalid UTF-8 in file names to these.
        return "the name is not valid UTF-8: rename the file"
    if "Cc" in categories:
        return "the name holds a control character: rename the file"
    return None
