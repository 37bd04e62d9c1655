"""Two-view geometries are kept beside the matches of their pair."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from lgbatch.colmap.stored import StoredMatches
from lgbatch.errors import StoreError
from lgbatch.storage.matches import MatchStore
from lgbatch.storage.upkeep.pack import pack
from lgbatch.types import Pair
from tests.storage.test_store import PROVENANCE, assert_equal, assert_one_line, matches
from tests.torture.harness import hloc_reader

PAIRS = [Pair("a.jpg", "c.jpg"), Pair("x/b.jpg", "a.jpg"), Pair("c.jpg", "x/b.jpg")]


def geometry(i: int, size: int = 700) -> bytes:
    return np.random.default_rng(i).bytes(size)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store of three pairs, of which the first two have a geometry."""
    path = tmp_path / "matches.h5"
    with MatchStore(path, append=PROVENANCE) as store:
        for i, pair in enumerate(PAIRS):
            store.write(pair, *matches(i))
        store.set_geometry(PAIRS[0], geometry(0))
    with MatchStore(path, append=PROVENANCE) as store:  # after its pair is committed
        store.set_geometry(PAIRS[1], geometry(1))
    return path


def test_a_geometry_is_read_as_set_in_either_order(path: Path) -> None:
    with MatchStore(path) as store:
        for i, pair in enumerate(PAIRS):
            expected = geometry(i) if i < 2 else None
            for order in pair, Pair(pair.b, pair.a):
                assert store.geometry(order) == expected
                assert store.stored_order(order) == pair
            assert_equal(store.read(pair), matches(i)[0])


def test_an_import_reads_pairs_and_geometries_in_the_stored_order(path: Path) -> None:
    """Whatever the order in the pairs file: a geometry of the other order would be verified again."""
    with MatchStore(path) as store:
        source = StoredMatches(store, [Pair(b, a) for a, b in PAIRS], dict.fromkeys(("a.jpg", "x/b.jpg", "c.jpg"), 1))
        assert [*source.pairs()] == PAIRS
        assert [source.geometry(pair) for pair in source.pairs()] == [geometry(0), geometry(1), None]


@pytest.mark.parametrize("size", [0, 1, 300, 1500, 59_999, 60_001, 70_000, 200_000])
def test_a_geometry_replaces_the_earlier_one(path: Path, size: int) -> None:
    with MatchStore(path, append=PROVENANCE) as store:
        for pair in PAIRS:
            store.set_geometry(pair, geometry(8, size))
            assert store.geometry(pair) == geometry(8, size)  # also before the commit
        store.commit()
        store.set_geometry(PAIRS[0], geometry(9))
    with MatchStore(path) as store:
        assert [store.geometry(pair) for pair in PAIRS] == [geometry(9), geometry(8, size), geometry(8, size)]


def test_a_geometry_is_removed_with_its_matches(path: Path) -> None:
    with MatchStore(path, append=PROVENANCE) as store:
        store.remove(PAIRS[0])
        store.write(Pair(PAIRS[0].b, PAIRS[0].a), *matches(5))
        assert store.geometry(PAIRS[0]) is None
        assert store.stored_order(PAIRS[0]) == Pair(PAIRS[0].b, PAIRS[0].a)
    with MatchStore(path) as store:
        assert store.geometry(PAIRS[0]) is None and store.geometry(PAIRS[1]) == geometry(1)


def test_only_stored_pairs_have_geometries(path: Path) -> None:
    missing = Pair("a.jpg", "d.jpg")
    with MatchStore(path, append=PROVENANCE) as store:
        for call in store.stored_order, store.geometry, lambda pair: store.set_geometry(pair, b"1"):
            with pytest.raises(KeyError):
                call(missing)


def test_an_uncommitted_geometry_is_dropped(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(RuntimeError), MatchStore(path, append=PROVENANCE) as store:
        store.set_geometry(PAIRS[0], geometry(7))
        store.set_geometry(PAIRS[2], geometry(8))
        raise RuntimeError
    assert path.read_bytes() == before


def test_packing_keeps_geometries(path: Path) -> None:
    for i in range(20):
        with MatchStore(path, append=PROVENANCE) as store:
            for pair in PAIRS:
                store.set_geometry(pair, geometry(i, 500 + 500 * i))
    done = pack(path)
    assert done.bytes_after < done.bytes_before
    with MatchStore(path, append=PROVENANCE) as store:
        assert [store.geometry(pair) for pair in PAIRS] == [geometry(19, 10_000)] * 3
        store.set_geometry(PAIRS[2], geometry(3))
        assert store.geometry(PAIRS[2]) == geometry(3)


def test_hloc_reads_matches_with_geometries(path: Path) -> None:
    for i, pair in enumerate(PAIRS):
        indices, scores = hloc_reader.get_matches(path, *pair)
        np.testing.assert_array_equal(indices, matches(i)[0].indices)
        np.testing.assert_array_equal(scores, matches(i)[0].scores)
    assert hloc_reader.list_images(path) == sorted(f"{a}/{b}".replace("x/b", "x-b") for a, b in PAIRS)


@pytest.mark.parametrize("value", [np.zeros((2, 2), np.uint8), np.zeros(3, np.float32), "text", h5py.Empty("u1")])
def test_a_damaged_geometry_raises_a_one_line_error(path: Path, value: object) -> None:
    with h5py.File(path, "r+") as file:
        file["a.jpg/c.jpg"].attrs["geometry"] = value
    with MatchStore(path) as store:
        with pytest.raises(StoreError) as error:
            store.geometry(PAIRS[0])
        assert_one_line(error, "a.jpg c.jpg", str(path), f"`lgbatch repair {path}`")
