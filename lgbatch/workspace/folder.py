"""Paths of the files in a workspace."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True)
class Workspace:
    """The folder that a run writes to."""

    root: Path

    @property
    def features(self) -> Path:
        """The features store (HDF5, hloc's layout)."""
        return self.root / "features.h5"

    @property
    def orientations(self) -> Path:
        """How each photo is turned upright, and why (JSON)."""
        return self.root / "orientations.json"

    @property
    def pairs(self) -> Path:
        """The pairs file: one image pair per line."""
        return self.root / "pairs.txt"

    @property
    def tried_pairs(self) -> Path:
        """The pairs that were tried in rounds, why, and with what result (JSON lines)."""
        return self.root / "pairs.jsonl"

    @property
    def candidates(self) -> Path:
        """The pairs that rounds choose from (NumPy's .npz)."""
        return self.root / "candidates.npz"

    @property
    def vocabulary(self) -> Path:
        """The visual words by which photos are compared (NumPy's .npz)."""
        return self.root / "vocabulary.npz"

    @property
    def matches(self) -> Path:
        """The matches store (HDF5, hloc's layout)."""
        return self.root / "matches.h5"

    @property
    def database(self) -> Path:
        """The COLMAP database."""
        return self.root / "database.db"

    @property
    def sparse(self) -> Path:
        """The folder of the COLMAP models, which are its subfolders 0, 1, ..."""
        return self.root / "sparse"

    @property
    def georeferenced(self) -> Path:
        """The folder of the models in a metric frame, with the numbers that they have in `sparse`."""
        return self.root / "georeferenced"

    @property
    def triangulated(self) -> Path:
        """The folder of the model with known poses, which is its subfolder 0."""
        return self.root / "triangulated"

    @property
    def second(self) -> Self:
        """The folder of the second try, with the same files."""
        return type(self)(self.root / "second")

    @property
    def summary(self) -> Path:
        """The summary of the last `lgbatch run` (JSON)."""
        return self.root / "summary.json"

    @property
    def report(self) -> Path:
        """The report of the workspace (HTML). Its facts are beside it (JSON)."""
        return self.root / "report.html"
