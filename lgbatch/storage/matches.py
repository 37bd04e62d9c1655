"""features.h5 and matches.h5, in hloc's layout, each item with what made it.

features   one group per image, called by its name ('/' nests):
           keypoints (N, 2) float32, scores (N,) float32, descriptors (D, N) float16, image_size (2,) int64 (W, H);
           of SIFT also scales (N,) and oris (N,) float32;
           attribute lgbatch (6,) uint64: made, version, photo's hash, size and time, N; hash 0: no photo was given
matches    one group per pair, a.replace('/', '-') / b.replace('/', '-'):
           matches0 (N0,) int32, -1 for none; matching_scores0 (N0,) float32;
           attribute lgbatch (4,) uint64: made, version of a's features, version of b's, number of matches

What these numbers stand for is told in provenance.py, and where the meaning of `made` is kept in itemfile.py. Files
written by hloc are read as well (its keypoint_scores, its half precision, its pairs in either order).
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence, Set
from contextlib import nullcontext

import numpy as np
from h5py import h5g

from lgbatch.storage.features import floats
from lgbatch.storage.hdf5 import link_names, open_group, read_array
from lgbatch.storage.provenance import UNKNOWN, PairRecord
from lgbatch.storage.store import Store
from lgbatch.types import IntArray, Matches, Pair

_OPEN_GROUPS = 256  # of first images: pairs come in blocks of few images


class MatchStore(Store):
    """Matches by pair, in the order in which the pair was matched."""

    kind = "matches"
    words = 4
    small = True
    _listed: set[bytes] | None = None

    def groups(self) -> Iterator[tuple[str, str]]:
        """The flattened names of all pairs in it."""
        for first in sorted(self._firsts()):
            group = self._group(first)
            with self.undamaged():
                seconds = link_names(group)
            for second in seconds:
                yield first.decode(), second.decode()

    def pairs(self, names: Sequence[str]) -> list[Pair]:
        """The pairs of these images that are in it, in the order in which they were matched."""
        by_flat = {name.replace("/", "-"): name for name in names}
        groups = self.groups()
        return [Pair(by_flat[a], by_flat[b]) for a, b in groups if a in by_flat and b in by_flat]

    def __contains__(self, pair: Pair) -> bool:
        """Whether the pair is there, in either order."""
        return self._find(pair) is not None

    def count(self, first: str, second: str) -> int:
        """How many matches a pair has, by its names in `groups`."""
        group = self._group(first.encode())
        with self.undamaged(f"{first} {second}"):
            return int(np.count_nonzero(_matches0(open_group(group, second.encode())) >= 0))

    def record(self, pair: Pair) -> PairRecord | None:
        """What a pair says of itself, versions in the order of `pair`; None when it is not there."""
        found = self._find(pair)
        if found is None:
            return None
        words = self._record(self._group(found[0]), found[1])
        if words is None:  # written by others
            return PairRecord(UNKNOWN, (UNKNOWN, UNKNOWN), self.count(found[0].decode(), found[1].decode()))
        made, first, second, count = words
        return PairRecord(made, (second, first) if found[2] else (first, second), count)

    def read(self, pair: Pair) -> Matches:
        """Read a pair; columns are in the order of `pair`.

        Raises KeyError when it is not there, and StoreError when it is damaged.
        """
        found = self._find(pair)
        if found is None:
            raise KeyError(pair)
        first_name, second_name, swapped = found
        with self.undamaged(" ".join(pair)):
            node = open_group(self._group(first_name), second_name)
            matches0, scores0 = _matches0(node), floats(read_array(node, b"matching_scores0", "f", 1))
            if len(matches0) != len(scores0):
                raise ValueError(f"{len(matches0)} matches0 and {len(scores0)} matching_scores0")
        first = np.flatnonzero(matches0 >= 0).astype(np.int32)
        scores = scores0[first]
        columns = (matches0[first], first) if swapped else (first, matches0[first])
        indices = np.stack(columns, axis=1)
        order = np.argsort(indices[:, 0])
        return Matches(indices[order], scores[order])

    def indices(self, pair: Pair) -> IntArray:
        """(K, 2) int32; as `read`."""
        return self.read(pair).indices

    def write(self, pair: Pair, matches: Matches, count: int, versions: tuple[int, int] = (UNKNOWN, UNKNOWN)) -> None:
        """Add a pair whose first image has `count` keypoints; raises StoreError as FeatureStore.write.

        `versions` are those of the features that it was matched from.
        """
        matches0 = np.full(count, -1, dtype=np.int32)
        scores = np.zeros(count, dtype=np.float32)
        matches0[matches.indices[:, 0]] = matches.indices[:, 1]
        scores[matches.indices[:, 0]] = matches.scores
        arrays = {b"matches0": matches0, b"matching_scores0": scores}
        first, second = (name.encode() for name in flat(pair))
        parent = self._group(first, make=first not in self._firsts())
        self._write(" ".join(pair), parent, second, arrays, (self.current, *versions, len(matches.indices)))

    def remove(self, pair: Pair) -> None:
        """Take a pair out, whichever order it has; it is gone at the next commit."""
        found = self._find(pair)
        if found:
            self._unlink(" ".join(pair), self._group(found[0]), found[1])

    def remove_made(self, made: Set[int]) -> None:
        """Take out what was made by these."""
        for first in self._firsts():
            group = self._group(first)
            for second in link_names(group):
                words = self._record(group, second)
                if words and words[0] in made:
                    self._unlink(f"{first.decode()} {second.decode()}", group, second)

    def _firsts(self) -> set[bytes]:
        if self._listed is None:
            with self.undamaged():
                self._listed = set(link_names(self._root))
            self._opened: OrderedDict[bytes, h5g.GroupID] = OrderedDict()
        return self._listed

    def _find(self, pair: Pair) -> tuple[bytes, bytes, bool] | None:
        """Group names of a pair that is there, and whether it is there the other way round."""
        first, second = (name.encode() for name in flat(pair))
        for a, b, swapped in (first, second, False), (second, first, True):
            if a in self._firsts() and self._group(a).links.exists(b):
                return a, b, swapped
        return None

    def _group(self, first: bytes, make: bool = False) -> h5g.GroupID:
        """The group of the pairs of a first image; the last ones are kept open."""
        group = self._opened.get(first)
        if group is None:
            with nullcontext() if make else self.undamaged(first.decode(errors="replace")):
                group = open_group(self._root, first, make=make)
            self._opened[first] = group
            self._firsts().add(first)
            if len(self._opened) > _OPEN_GROUPS:
                self._opened.popitem(last=False)
        self._opened.move_to_end(first)
        return group

    def _forget(self) -> None:
        self._opened = OrderedDict()


def flat(pair: Pair) -> tuple[str, str]:
    """Group names of a pair in hloc's layout. 'a/b.jpg' and 'a-b.jpg' have the same one."""
    return pair.a.replace("/", "-"), pair.b.replace("/", "-")


def _matches0(node: h5g.GroupID) -> IntArray:
    matches0 = read_array(node, b"matches0", "iu", 1)
    if matches0.size and matches0.max() > np.iinfo(np.int32).max:
        raise ValueError(f"its matches0 has the number {matches0.max()}")
    return matches0.astype(np.int32, copy=False)
