"""Votes for pairs of images: their best descriptors that are mutual nearest neighbours and pass the ratio test."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Protocol, TypeVar

import numpy as np

from lgbatch.pairing.nearest_descriptors import mutual_nearest
from lgbatch.types import FloatArray, IntArray, LongArray

BEST = 512
"""Descriptors of an image that vote. Half as many find fewer of the pairs: docs/pairs.md."""
_LEVELS = 127
T = TypeVar("T")


class Track(Protocol):
    """Shows progress: a function such as workspace.progress.track."""

    def __call__(self, items: Iterable[T], step: str, *, total: int, unit: str) -> Iterable[T]:
        """Yield the items."""
        ...


def untracked(items: Iterable[T], step: str, *, total: int, unit: str) -> Iterable[T]:
    """Return the items, without showing anything."""
    return items


class BestDescriptors:
    """The best descriptors of images in 8 bits: 66 kB an image for 128 numbers a descriptor."""

    def __init__(self, images: int) -> None:
        self._values: list[np.ndarray[tuple[int, int], np.dtype[np.int8]]] = [np.zeros((0, 0), np.int8)] * images
        self._steps: list[FloatArray] = [np.zeros((0, 1), np.float32)] * images

    def add(self, row: int, descriptors: FloatArray) -> None:
        """Store the first BEST of an image's descriptors (N, D), which are sorted by score."""
        best = descriptors[:BEST]
        steps = np.maximum(np.abs(best).max(1, keepdims=True, initial=0), 1e-9) / _LEVELS
        self._values[row] = np.rint(best / steps).astype(np.int8)
        self._steps[row] = steps.astype(np.float32)

    def read(self, row: int) -> FloatArray:
        """Return the descriptors of an image, rows of norm 1 to within 0.2 percent."""
        return self._values[row] * self._steps[row]

    def count_votes(self, pairs: IntArray | LongArray, threads: int, track: Track = untracked) -> FloatArray:
        """Return the votes (P,) for pairs (P, 2) of rows, which are fastest if sorted. Deterministic."""
        starts = [0, *(np.flatnonzero(np.diff(pairs[:, 0])) + 1).tolist(), len(pairs)]
        groups = [pairs[start:end] for start, end in pairwise(starts)]
        with ThreadPoolExecutor(threads) as pool:
            counted = track(pool.map(self._votes_of_group, groups), "pairs", total=len(groups), unit="photo")
            return np.array([votes for group in counted for votes in group], np.float32)

    def _votes_of_group(self, group: IntArray | LongArray) -> list[int]:
        """Votes for pairs with the same first image."""
        first = self.read(int(group[0, 0])) if len(group) else None
        return [len(mutual_nearest(first, self.read(row))[0]) for row in group[:, 1].tolist() if first is not None]
