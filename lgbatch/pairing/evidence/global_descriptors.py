"""Global descriptors of images, such as NetVLAD's, from a file in hloc's layout: one group per image."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from lgbatch.errors import InputError
from lgbatch.pairing.evidence.lists import Ranked, Source
from lgbatch.pairing.retrieval import most_similar
from lgbatch.types import LongArray

_KEY = "global_descriptor"


def most_similar_by_file(path: Path, names: Sequence[str], count: int, queries: LongArray | None = None) -> Ranked:
    """Rank for each image, or for the rows `queries` (Q,), the `count` others with the most similar descriptors.

    Images that the file lacks are in no pair. Raises InputError if it cannot be read, or has no descriptor of an image.
    """
    rows, vectors = _read(path, names)
    queries = rows if queries is None else np.intersect1d(rows, queries)
    if len(rows) < 2 or not len(queries):
        return Ranked.from_table(Source.LOOKS, np.zeros(0, np.int64), np.zeros((0, 0), np.int64))
    found = most_similar(vectors, min(count, len(rows) - 1), np.searchsorted(rows, queries))
    return Ranked.from_table(Source.LOOKS, queries, rows[found])


def check_global_descriptors(path: Path) -> None:
    """Raise InputError if the file cannot be opened."""
    try:
        h5py.File(path, "r").close()
    except OSError as error:
        raise InputError(f"cannot read global descriptors from {path} ({error}): give an HDF5 file") from None


def _read(path: Path, names: Sequence[str]) -> tuple[LongArray, NDArray[np.float16]]:
    """Return the rows (N,) of the images that the file has, and their vectors (N, V) of norm 1."""
    rows, vectors = [], []
    try:
        with h5py.File(path, "r") as file:
            for row, name in enumerate(names):
                if (item := file.get(f"{name}/{_KEY}")) is not None:
                    rows.append(row)
                    vector = np.asarray(item[()], np.float64).ravel()
                    if not (vector.size and np.isfinite(vector).all()):
                        raise ValueError(f"that of {name} is not finite numbers")
                    vectors.append((vector / max(float(np.linalg.norm(vector)), 1e-9)).astype(np.float16))
        stacked = np.stack(vectors)
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        reason = "no image has one" if not rows else str(error).partition("\n")[0]
        hint = f"give a file with {_KEY} for each image, as hloc writes it"
        raise InputError(f"cannot read global descriptors from {path} ({reason}): {hint}") from None
    return np.array(rows, np.int64), stacked
