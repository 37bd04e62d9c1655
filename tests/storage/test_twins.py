"""Images whose names differ in '/' and '-' only have one group name in hloc's layout. Their pairs are kept apart."""

from itertools import combinations
from pathlib import Path

import h5py
import numpy as np
import pytest

from lgbatch.cli.info import describe
from lgbatch.errors import StoreError
from lgbatch.storage.matches import MatchStore
from lgbatch.storage.upkeep.pack import pack
from lgbatch.types import Matches, Pair

PROVENANCE = {"matcher": "disk lightglue"}
NAMES = ["a/b/c.jpg", "a-b/c.jpg", "a/b-c.jpg", "a-b-c.jpg", "x/y.jpg", "é.jpg"]
PAIRS = [Pair(a, b) for a, b in combinations(NAMES, 2)]


def some_matches(count: int) -> Matches:
    return Matches(np.arange(2 * count, dtype=np.int32).reshape(count, 2), np.ones(count, np.float32))


def write(store: MatchStore, pairs: list[Pair], first: int = 0) -> None:
    """Write pairs with 1, 2, ... matches more than `first`."""
    for i, pair in enumerate(pairs, first + 1):
        store.write(pair, some_matches(i), 100, (i, i))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "matches.h5"


def test_twins_are_kept_apart(path: Path) -> None:
    with MatchStore(path, append=PROVENANCE) as store:
        store.separate_twins(NAMES)
        write(store, PAIRS)
    pack(path)
    with MatchStore(path) as store:
        assert set(store.pairs(NAMES)) == set(PAIRS)
        assert store.pairs(NAMES[2:4]) == [Pair(*NAMES[2:4])]
        for i, pair in enumerate(PAIRS, 1):
            assert len(store.read(pair).indices) == len(store.read(Pair(pair.b, pair.a)).indices) == i
            assert store.record(pair) == (*store.provenances, (i, i), i)
        assert sum(store.count(*names) for names in store.groups()) == sum(range(1, len(PAIRS) + 1))
    (info,) = describe(path)
    assert (info["items"], info["matches"]) == (15, 120)


def test_only_the_groups_of_twins_are_named_in_another_way(path: Path) -> None:
    with MatchStore(path, append=PROVENANCE) as store:
        store.separate_twins([*NAMES, "left/1-2.jpg"])
        write(store, [Pair("x/y.jpg", "é.jpg"), Pair("left/1-2.jpg", "x/y.jpg"), Pair("x/y.jpg", "a/b-c.jpg")])
    with h5py.File(path) as file:
        assert {first: set(file[first]) for first in file} == {
            "x-y.jpg": {"é.jpg", "\x1fa\x1fb-c.jpg"},
            "left-1-2.jpg": {"x-y.jpg"},
        }


def test_a_set_without_twins_leaves_no_trace(path: Path, tmp_path: Path) -> None:
    for file in path, tmp_path / "other.h5":
        with MatchStore(file, append=PROVENANCE) as store:
            if file == path:
                store.separate_twins(["a/b.jpg", "c.jpg"])
            write(store, [Pair("a/b.jpg", "c.jpg")])
    assert path.read_bytes() == (tmp_path / "other.h5").read_bytes()


def test_a_twin_that_is_added_later(path: Path) -> None:
    """The pairs that the file has under the shared name may be of either image, and are matched again."""
    old, other = Pair("c.jpg", "a/b.jpg"), Pair("c.jpg", "d.jpg")
    with MatchStore(path, append=PROVENANCE) as store:
        store.separate_twins(["a/b.jpg", "c.jpg", "d.jpg"])
        write(store, [old, other])
    names = ["a/b.jpg", "a-b.jpg", "c.jpg", "d.jpg"]
    with MatchStore(path) as store:  # before the next run has told the store
        assert store.pairs(names) == [other]
    with MatchStore(path, append=PROVENANCE) as store:
        store.separate_twins(names)
        assert old not in store and Pair("a-b.jpg", "c.jpg") not in store and other in store
        write(store, [Pair("a-b.jpg", "a/b.jpg"), old], 5)
    with MatchStore(path, append=PROVENANCE) as store:
        store.separate_twins(names[1:])  # one of them has left the folder: both keep their groups
        assert set(store.pairs(names)) == {other, old, Pair("a-b.jpg", "a/b.jpg")}
        assert store.pairs(names[1:]) == [other]
        assert Pair("a-b.jpg", "c.jpg") not in store
        assert len(store.read(old).indices) == 7
        assert sum(entry["items"] for entry in store.provenances.values()) == 3


def test_twins_are_forgotten_with_the_changes_since_the_last_commit(path: Path) -> None:
    with MatchStore(path, append=PROVENANCE) as store:
        write(store, [Pair("a/b.jpg", "c.jpg")])
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), MatchStore(path, append=PROVENANCE) as store:
        store.separate_twins(["a/b.jpg", "a-b.jpg", "c.jpg"])
        raise KeyboardInterrupt
    assert path.read_bytes() == before


def test_pairs_of_twins_are_removed(path: Path) -> None:
    with MatchStore(path, append=PROVENANCE) as store:
        store.separate_twins(NAMES)
        write(store, PAIRS)
    with MatchStore(path, append=PROVENANCE | {"new": True}) as store:
        store.remove(Pair(NAMES[1], NAMES[0]))
        assert set(store.pairs(NAMES)) == set(PAIRS[1:])
        write(store, PAIRS[:1])
        store.remove_by_fingerprint(set(store.outdated))
        assert store.pairs(NAMES) == PAIRS[:1]


def test_a_damaged_list_of_twins_is_told(path: Path) -> None:
    with MatchStore(path, append=PROVENANCE) as store:
        store.separate_twins(["a/b.jpg", "a-b.jpg"])
        write(store, [Pair("a/b.jpg", "c.jpg")])
    data = path.read_bytes()
    for value in b'["a-b.jpg", 12345678]', b"123456789012345678901":
        assert data.count(b'["a-b.jpg", "a/b.jpg"]') == 1
        path.write_bytes(data.replace(b'["a-b.jpg", "a/b.jpg"]', value.ljust(22)))
        with pytest.raises(StoreError, match="is damaged"):
            MatchStore(path)
