"""What the units of matching have found out about pairs, in arrays: 16 bytes a pair."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from lgbatch.pipelines.pairs.verifier import PairResult
from lgbatch.types import BoolArray, IntArray, Pair, PairList


class KnownPairs:
    """The results of pairs of images, in either order. A later result of a pair replaces an earlier one."""

    def __init__(self, names: Sequence[str], results: Iterable[tuple[Sequence[Pair], IntArray]]) -> None:
        """`names` are those of the set; `results` are pairs, with the matches and inliers of each, (P, 2)."""
        self._rows = {name: row for row, name in enumerate(names)}
        keys, values = [np.zeros(0, np.int64)], [np.zeros((0, 2), np.int32)]
        for pairs, found in results:
            keys.append(self._keys(pairs))
            values.append(found)
        every, found = np.concatenate(keys)[::-1], np.concatenate(values)[::-1]
        self._known, first = np.unique(every, return_index=True)
        self._found = found[first]

    def missing(self, pairs: Sequence[Pair]) -> BoolArray:
        """Which of the pairs are not known, (P,)."""
        return ~self._find(pairs)[1]

    def results(self, pairs: Sequence[Pair]) -> list[PairResult]:
        """The results of pairs that are known."""
        return [PairResult(matches, inliers) for matches, inliers in self._found[self._find(pairs)[0]].tolist()]

    def _find(self, pairs: Sequence[Pair]) -> tuple[NDArray[np.int64], BoolArray]:
        """Rows of the pairs among the known ones, and whether they are."""
        keys = self._keys(pairs)
        if not len(self._known):
            return np.zeros(len(keys), np.int64), np.zeros(len(keys), np.bool_)
        rows = np.minimum(np.searchsorted(self._known, keys), len(self._known) - 1)
        known: BoolArray = self._known[rows] == keys
        return rows, known

    def _keys(self, pairs: Sequence[Pair]) -> NDArray[np.int64]:
        listed = PairList.of(pairs)
        rows = np.array([self._rows.setdefault(name, len(self._rows)) for name in listed.names], np.int64)
        ids = listed.lookup(rows) if len(listed) else np.zeros((0, 2), np.int64)
        keys: NDArray[np.int64] = (ids.min(axis=1) << 32) | ids.max(axis=1)
        return keys
