"""What import_database reads: features, one image at a time, and matches, one pair at a time."""

from collections.abc import Sequence
from typing import Protocol

from lgbatch.types import FloatArray, IntArray, Pair


class FeatureSource(Protocol):
    """The features to import, read one image at a time."""

    def names(self) -> Sequence[str]:
        """Image names: paths relative to the image folder, with forward slashes."""

    def keypoints(self, name: str) -> FloatArray:
        """(N, 2) float32, x and y in pixels of the original image, top-left pixel centre (0, 0)."""

    def image_size(self, name: str) -> tuple[int, int]:
        """(width, height) of the original image, as COLMAP reads the file."""

    def orientation(self, name: str) -> int:
        """How the image was turned upright for extraction: EXIF code, 1 to 8."""


class MatchSource(Protocol):
    """The matches to import, read one pair at a time."""

    def pairs(self) -> Sequence[Pair]:
        """The pairs, each once, with its images in either order."""

    def indices(self, pair: Pair) -> IntArray:
        """(K, 2) int32, rows into the keypoints of the pair's first and second image, one to one."""

    def geometry(self, pair: Pair) -> bytes | None:
        """The two-view geometry of the pair if it is verified already, as two_view.pack_geometry packs it."""
