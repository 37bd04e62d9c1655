"""Mutual nearest neighbours that pass the ratio test (Lowe, IJCV 2004), as COLMAP matches SIFT. There is no model.

Both directions are tested, and neighbours must be nearer than 0.7 rad. Similarities are computed exactly, by blocks of
rows; the way back only for the keypoints that pass the way forth. OpenCV multiplies in the calling thread: NumPy's
threads would wait for each other in every thread of the pool.
"""

from collections.abc import Callable, Generator, Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from lgbatch.storage.provenance import Provenance
from lgbatch.types import Failure, Features, FloatArray, Matches, Pair
from lgbatch.workspace.prefetch import prefetch
from lgbatch.workspace.signals import until_stopped

RATIO = 0.8
"""Largest distance of the nearest neighbour, as a part of that of the second nearest."""
MIN_SIMILARITY = float(np.cos(0.7))
PROVENANCE: Provenance = {"matcher": "mutual nearest neighbours", "ratio": RATIO}
_BLOCK = 1024
"""Rows that are compared at a time: the whole table of 8192 x 8192 similarities would take 256 MB."""


def match_nearest_pairs(
    pairs: Sequence[Pair], counts: Mapping[str, int], read: Callable[[str], Features], threads: int
) -> Generator[tuple[Pair, Matches | Failure], None, None]:
    """Match pairs ahead of the caller, in their order. Arguments and failures are those of engine.match_pairs."""

    def match_pair(pair: Pair) -> tuple[Pair, Matches | Failure]:
        descriptors = []
        for name in pair:
            try:
                descriptors.append(read(name).descriptors if counts[name] else np.zeros((0, 1), np.float32))
            except Exception as error:  # ItemError, or for instance MemoryError
                return pair, Failure.from_exception("match", name, error)
        try:
            return pair, mutual_nearest(*descriptors)
        except Exception as error:
            return pair, Failure.from_exception("match", " ".join(pair), error)

    yield from prefetch(match_pair, until_stopped(pairs), threads=threads, depth=4 * threads)


def mutual_nearest(a: FloatArray, b: FloatArray) -> Matches:
    """Match descriptors of norm 1, (N, D) and (M, D) float32. The scores are their similarities. Deterministic."""
    if len(a) < 2 or len(b) < 2:  # there is no second nearest neighbour
        return Matches(np.zeros((0, 2), np.int32), np.zeros(0, np.float32))
    forth, _ = _clear_nearest(a, b)
    rows = np.flatnonzero(forth >= 0)
    columns = np.unique(forth[rows])
    back, similarity = _clear_nearest(b[columns], a)
    place = np.searchsorted(columns, forth[rows])
    mutual = back[place] == rows
    indices = np.stack([rows[mutual], forth[rows][mutual]], axis=1).astype(np.int32)
    return Matches(indices, np.clip(similarity[place[mutual]], 0, 1))


def _clear_nearest(a: FloatArray, b: FloatArray) -> tuple[NDArray[np.intp], FloatArray]:
    """For each row of `a` the nearest row of `b`, or -1 if it is not clearly nearer than the others; its similarity."""
    found, best = np.full(len(a), -1, np.intp), np.zeros(len(a), np.float32)
    for start in range(0, len(a), _BLOCK):
        block = np.ascontiguousarray(a[start : start + _BLOCK])
        similarity = np.asarray(cv2.gemm(block, b, 1, None, 0, flags=cv2.GEMM_2_T))  # type: ignore[call-overload]
        rows, nearest = np.arange(len(block)), similarity.argmax(1)
        first = similarity[rows, nearest]
        similarity[rows, nearest] = -1
        second = similarity.max(1)
        # squared distances of unit vectors are 2 (1 - similarity)
        clear = (1 - first < RATIO**2 * (1 - second)) & (first > MIN_SIMILARITY)
        found[start : start + _BLOCK] = np.where(clear, nearest, -1)
        best[start : start + _BLOCK] = first
    return found, best
