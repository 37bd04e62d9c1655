"""Nearest neighbours of descriptors, in both directions, with the ratio test (Lowe, IJCV 2004).

OpenCV multiplies in the calling thread. NumPy's threads would wait for each other in every thread of a pool.
"""

import numpy as np
from numpy.typing import NDArray

from lgbatch.types import BoolArray, FloatArray

RATIO = 0.8
"""Largest distance of the nearest neighbour, as a part of that of the second nearest."""


def similarities(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return the products (N, M) of descriptors (N, D) and (M, D), C-contiguous float32. Thread-safe."""
    import cv2  # late: LightGlue does without

    return np.asarray(cv2.gemm(a, b, 1, None, 0, flags=cv2.GEMM_2_T))  # type: ignore[call-overload]


def is_clear(first: FloatArray, second: FloatArray) -> BoolArray:
    """Whether neighbours of similarity `first` are much nearer than the second nearest ones. Descriptors of norm 1."""
    clear: BoolArray = 1 - first < RATIO**2 * (1 - second)  # squared distances of unit vectors are 2 (1 - similarity)
    return clear


def mutual_nearest(a: FloatArray, b: FloatArray) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows of `a` (N, D) and `b` (M, D), norm 1, that are nearest to each other.

    Those of `b` are much nearer than the second nearest. The table of N x M similarities is in memory. Thread-safe,
    deterministic.
    """
    if len(a) == 0 or len(b) < 2:
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    similarity = similarities(a, b)
    nearest, every = similarity.argmax(1), np.arange(len(a))
    first = similarity[every, nearest]
    rows = np.flatnonzero(first == similarity.max(0)[nearest])  # argmax along columns takes ten times as long
    columns = nearest[rows]
    similarity[rows, columns] = -1
    clear = is_clear(first[rows], similarity[rows].max(1))
    return rows[clear], columns[clear]
