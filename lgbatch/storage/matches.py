"""matches.h5, in hloc's layout, with a record in each item.

One group per pair (a, b), at a.replace('/', '-') / b.replace('/', '-'). Names that this makes equal, as of a/b.jpg and
a-b.jpg, are twins. The provenance table lists them as "twins", and their groups are named unlike any other image's:
by U+001F, the name, and in it U+001F for '/'. The items are:

    matches0          (N0,) int16, for each keypoint of a the matching keypoint of b, or -1; int32 for large indices
    matching_scores0  (N0,) float32

    attribute lgbatch (4,) uint64: fingerprint, version of a's features, version of b's features, number of matches
    (for fingerprint and version see provenance.py)
    attribute geometry (size,) uint8: two-view geometry of (a, b), see `set_geometry`; absent if there is none

The datasets are compressed: 3 kB instead of 17 kB for 350 matches of 2048 keypoints (see docs/design.md). lgbatch 0.1
wrote int32, not compressed. Files written by hloc can be read as well: any integer and float precision, no record.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np
from h5py import h5g

from lgbatch.storage.features import as_float32
from lgbatch.storage.hdf5 import link_names, open_group, read_array, read_bytes
from lgbatch.storage.joining.shard_files import MAX_OPEN_SHARDS
from lgbatch.storage.provenance import UNKNOWN, PairRecord, Provenance
from lgbatch.storage.store import Store
from lgbatch.types import IntArray, Matches, Pair

_TWIN_SEPARATOR = "\x1f"  # a control character, which no image name has
GEOMETRY = b"geometry"
"""Attribute of a pair that has a two-view geometry."""
_MAX_OPEN_GROUPS = 256  # pairs are matched in blocks of few images


class _Location(NamedTuple):
    """Where a pair is stored."""

    first: bytes
    """Name of the first image's group."""
    second: bytes
    """Name of the pair's group in it."""
    swapped: bool
    """Whether the pair is stored in the opposite order."""


class MatchStore(Store):
    """Matches of image pairs. A pair is found in either order, and stored in the order it was matched in."""

    kind = "matches"
    record_words = 4
    use_templates = True
    _cached_first_names: set[bytes] | None = None

    def __init__(self, path: Path, *, append: Provenance | None = None) -> None:
        """Open a store, as Store."""
        self._open_groups: OrderedDict[bytes, h5g.GroupID] = OrderedDict()
        super().__init__(path, append=append)
        self._twins: set[str] = set(self._table.get("twins", ()))

    def separate_twins(self, names: Iterable[str]) -> None:
        """Store the pairs of images whose names differ in '/' and '-' only apart, from now on.

        Pairs that are stored under the name that they share are removed: they may be of either image.
        """
        twins = twins_of(names) - self._twins
        if not twins:
            return
        shared = set(map(hloc_name, twins))
        for first, second in self.groups():
            if first in shared or second in shared:
                self._unlink(f"{first} {second}", self._group(first.encode()), second.encode())
        self._twins |= twins
        self._table["twins"] = sorted(self._twins)
        self._changed = True

    def groups(self) -> Iterator[tuple[str, str]]:
        """Yield the group names of all pairs: image names with '-' for '/', or of twins (see above)."""
        for first in sorted(self._first_names()):
            group = self._group(first)
            with self.damage_as_store_error():
                seconds = link_names(group)
            for second in seconds:
                yield first.decode(), second.decode()

    def pairs(self, names: Sequence[str]) -> list[Pair]:
        """Return the stored pairs of these images, each in its stored order.

        Leaves out the pairs of images that share a group name, as twins do in files of hloc.
        """
        by_group = _by_group(names, self._group_name)
        name_of = {group: same.pop() for group, same in by_group.items() if len(same) == 1}
        return [Pair(name_of[a], name_of[b]) for a, b in self.groups() if a in name_of and b in name_of]

    def keep_only(self, names: Sequence[str]) -> None:
        """Remove the pairs that are not of two of these images, at the next commit."""
        kept = set(_by_group(names, self._group_name))
        for first, second in list(self.groups()):
            if first not in kept or second not in kept:
                self._unlink(f"{first} {second}", self._group(first.encode()), second.encode())

    def __contains__(self, pair: Pair) -> bool:
        """Whether the store contains the pair, in either order."""
        return self._find(pair) is not None

    def count(self, first: str, second: str) -> int:
        """Return the number of matches of a pair, given by its names in `groups`."""
        group = self._group(first.encode())
        with self.damage_as_store_error(f"{first} {second}"):
            return int(np.count_nonzero(_matches0(open_group(*self._place(group, second.encode()))) >= 0))

    def record(self, pair: Pair) -> PairRecord | None:
        """Return the record of a pair, with the versions in the order of `pair`; None if the store lacks it."""
        location = self._find(pair)
        if location is None:
            return None
        words = self._record(self._group(location.first), location.second)
        if words is None:  # written by another program
            count = self.count(location.first.decode(), location.second.decode())
            return PairRecord(UNKNOWN, (UNKNOWN, UNKNOWN), count)
        item_fingerprint, first, second, count = words
        return PairRecord(item_fingerprint, (second, first) if location.swapped else (first, second), count)

    def read(self, pair: Pair) -> Matches:
        """Read the matches of a pair; the columns of the indices are in the order of `pair`.

        Raises KeyError if the store lacks the pair, and StoreError if the item is damaged.
        """
        location = self._location(pair)
        with self.damage_as_store_error(" ".join(pair)):
            node = self._node(location)
            matches0, scores0 = _matches0(node), as_float32(read_array(node, b"matching_scores0", "f", 1))
            if len(matches0) != len(scores0):
                raise ValueError(f"{len(matches0)} matches0 and {len(scores0)} matching_scores0")
        first = np.flatnonzero(matches0 >= 0)
        if location.swapped:
            first = first[np.argsort(matches0[first])]
        indices = np.empty((len(first), 2), dtype=np.int32)
        indices[:, int(location.swapped)], indices[:, int(not location.swapped)] = first, matches0[first]
        return Matches(indices, scores0[first])

    def indices(self, pair: Pair) -> IntArray:
        """Return the indices of a pair's matches, (K, 2) int32. Raises as `read`."""
        return self.read(pair).indices

    def stored_order(self, pair: Pair) -> Pair:
        """Return the pair in the order in which it is stored. Raises KeyError if the store lacks the pair."""
        return Pair(pair.b, pair.a) if self._location(pair).swapped else pair

    def geometry(self, pair: Pair) -> bytes | None:
        """Return the two-view geometry of a pair, as `set_geometry` was given it; None if the pair has none.

        It is of the pair in its `stored_order`. Raises KeyError if the store lacks the pair, and StoreError if the
        item is damaged.
        """
        location = self._location(pair)
        with self.damage_as_store_error(" ".join(pair)):
            node = self._node(location)
            return read_bytes(node, GEOMETRY)

    def set_geometry(self, pair: Pair, geometry: bytes) -> None:
        """Store a two-view geometry beside the matches of a pair, with effect from the next commit.

        It replaces an earlier one, and is removed with the pair. The store does not interpret it; its meaning is that
        of the pair in its `stored_order`. Raises KeyError if the store lacks the pair, and StoreError as `write`.
        """
        location = self._location(pair)
        with self.damage_as_store_error(" ".join(pair)):
            node = self._node(location)
        self._set_bytes(" ".join(pair), node, GEOMETRY, geometry)

    def write(
        self, pair: Pair, matches: Matches, keypoints: int, versions: tuple[int, int] = (UNKNOWN, UNKNOWN)
    ) -> None:
        """Add a pair whose first image has this many keypoints. Raises StoreError as FeatureStore.write.

        `versions` are those of the features that the pair was matched from.
        """
        first, second = matches.indices.T
        matches0 = np.full(keypoints, -1, dtype=index_type(second))
        scores = np.zeros(keypoints, dtype=np.float32)
        matches0[first], scores[first] = second, matches.scores
        arrays = {b"matches0": matches0, b"matching_scores0": scores}
        record = (self.current_fingerprint, *versions, len(matches.indices))
        group, name = self._group_name(pair.a).encode(), self._group_name(pair.b).encode()
        parent = self._group(group, create=group not in self._first_names())
        self._write(" ".join(pair), parent, name, arrays, record)

    def remove(self, pair: Pair) -> None:
        """Remove a pair, stored in either order, with effect from the next commit."""
        location = self._find(pair)
        if location:
            self._unlink(" ".join(pair), self._group(location.first), location.second)

    def remove_by_fingerprint(self, fingerprints: Set[int], keep: Set[str] = frozenset()) -> None:
        """Remove all pairs with one of these fingerprints, except those to `keep`: images, or pairs as 'a b'."""
        kept = {self._group_name(name) for name in keep} | {hloc_name(name) for name in keep}
        for first in self._first_names():
            group = self._group(first)
            for second in link_names(group):
                a, b = first.decode(), second.decode()
                words = None if kept & {a, b, f"{a} {b}", f"{b} {a}"} else self._record(group, second)
                if words and words[0] in fingerprints:
                    self._unlink(f"{a} {b}", group, second)

    def _group_name(self, name: str) -> str:
        return _TWIN_SEPARATOR + name.replace("/", _TWIN_SEPARATOR) if name in self._twins else hloc_name(name)

    def _first_names(self) -> set[bytes]:
        """Return the group names of all first images."""
        if self._cached_first_names is None:
            with self.damage_as_store_error():
                self._cached_first_names = set(link_names(self._root))
        return self._cached_first_names

    def _find(self, pair: Pair) -> _Location | None:
        first, second = self._group_name(pair.a).encode(), self._group_name(pair.b).encode()
        for location in _Location(first, second, swapped=False), _Location(second, first, swapped=True):
            if location.first in self._first_names() and self._group(location.first).links.exists(location.second):
                return location
        return None

    def _location(self, pair: Pair) -> _Location:
        location = self._find(pair)
        if location is None:
            raise KeyError(pair)
        return location

    def _node(self, location: _Location) -> h5g.GroupID:
        return open_group(*self._place(self._group(location.first), location.second))

    def _group(self, first: bytes, create: bool = False) -> h5g.GroupID:
        """Open the group of a first image. The most recently used groups stay open."""
        group = self._open_groups.get(first)
        if group is None:
            with nullcontext() if create else self.damage_as_store_error(first.decode(errors="replace")):
                place = (self._root, first) if create else self._place(self._root, first)
                group = open_group(*place, create=create)
            self._open_groups[first] = group
            self._first_names().add(first)
            if len(self._open_groups) > (_MAX_OPEN_GROUPS if self.shards is None else MAX_OPEN_SHARDS):
                self._open_groups.popitem(last=False)
        self._open_groups.move_to_end(first)
        return group

    def _close_groups(self) -> None:
        self._open_groups.clear()


def index_type(indices: IntArray) -> type[np.int16 | np.int32]:
    """Return the type of the stored indices of keypoints: that of hloc, or a larger one if an index needs it."""
    return np.int16 if indices.max(initial=0) <= np.iinfo(np.int16).max else np.int32


def twins_of(names: Iterable[str]) -> set[str]:
    """Return the names that hloc's layout makes equal to others."""
    return {name for same in _by_group(names, hloc_name).values() if len(same) > 1 for name in same}


def hloc_name(name: str) -> str:
    """Return the name of an image's groups in hloc's layout."""
    return name.replace("/", "-")


def _by_group(names: Iterable[str], group_name: Callable[[str], str]) -> dict[str, set[str]]:
    """Map group names to the images that have them."""
    by_group: dict[str, set[str]] = defaultdict(set)
    for name in names:
        by_group[group_name(name)].add(name)
    return by_group


def _matches0(node: h5g.GroupID) -> IntArray:
    matches0 = read_array(node, b"matches0", "iu", 1)
    if matches0.size and matches0.max() > np.iinfo(np.int32).max:
        raise ValueError(f"its matches0 contains {matches0.max()}")
    return matches0.astype(np.int32, copy=False)
