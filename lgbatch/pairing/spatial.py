"""Which images were taken near each other, by their positions."""

import numpy as np
from numpy.typing import NDArray

_METRES_PER_DEGREE = 111_320.0
_TABLE = 1 << 22
"""Distances that are in memory at a time."""


def local_metres(latitudes: NDArray[np.float64], longitudes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return positions (N, 2) in metres east and north of the first one, from degrees. Good to within some 100 km."""
    east = (np.mod(longitudes - longitudes[0] + 180, 360) - 180) * np.cos(np.radians(latitudes[0]))
    return np.stack([east, latitudes - latitudes[0]], axis=1) * _METRES_PER_DEGREE


def nearest(positions: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """Return for each of N positions (N, C) the rows of the `count` nearest others, (N, count), nearest first.

    `count` must be less than N.
    """
    best = np.empty((len(positions), count), np.intp)
    squares = (positions**2).sum(1)
    rows_at_once = max(1, _TABLE // len(positions)) if len(positions) else 1
    for start in range(0, len(positions), rows_at_once):
        block = positions[start : start + rows_at_once]
        distances = squares[start : start + rows_at_once, None] - 2 * block @ positions.T + squares
        rows = np.arange(len(block))
        distances[rows, start + rows] = np.inf
        candidates = np.argpartition(distances, count - 1, axis=1)[:, :count]
        order = np.argsort(np.take_along_axis(distances, candidates, axis=1), axis=1, kind="stable")
        best[start : start + rows_at_once] = np.take_along_axis(candidates, order, axis=1)
    return best
