"""The records that travel between the stages.

Shapes, dtypes, units and the pixel origin are stated here, once:

- Keypoints are in pixels of the ORIGINAL image, x then y; the centre of the top-left pixel is (0, 0).
- Image sizes are (width, height), after the photo's EXIF orientation has been dealt with as COLMAP does it.
- N is the number of keypoints of an image, D the length of a descriptor, K the number of matches of a pair.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Workspace:
    """The folder a run works in, and the names of what lies there."""

    root: Path

    @property
    def features(self) -> Path:
        """Features store (HDF5, hloc's layout)."""
        return self.root / "features.h5"

    @property
    def pairs(self) -> Path:
        """Image pairs, one a line."""
        return self.root / "pairs.txt"

    @property
    def matches(self) -> Path:
        """Matches store (HDF5, hloc's layout)."""
        return self.root / "matches.h5"

    @property
    def database(self) -> Path:
        """COLMAP database."""
        return self.root / "database.db"

    @property
    def sparse(self) -> Path:
        """COLMAP models, one folder each: 0, 1, ..."""
        return self.root / "sparse"

    @property
    def summary(self) -> Path:
        """What the last `lgbatch run` did."""
        return self.root / "summary.json"
