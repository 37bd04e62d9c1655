"""Joined shards equal the one store that a single run would have written, by copies and by links."""

import errno
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from lgbatch.errors import InputError, StoreError
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.joining.join import Joined, join
from lgbatch.storage.matches import MatchStore
from lgbatch.types import Pair
from tests.storage.joining.conftest import (
    MADE,
    NAMES,
    PAIRS,
    assert_equal_features,
    assert_equal_matches,
    some_matches,
    write_features,
    write_matches,
)

BOTH = pytest.mark.parametrize("links", [False, True], ids=["copy", "links"])


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "store.h5"


def state(path: Path) -> tuple[bytes, int, int]:
    """The bytes of a file, when it was changed, and which file it is."""
    return path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino


@BOTH
def test_features_equal_those_of_one_run(feature_shards: list[Path], target: Path, tmp_path: Path, links: bool) -> None:
    seen: list[None] = []
    joined = join(target, feature_shards, links=links, on_shard=lambda: seen.append(None))
    expected = write_features(tmp_path / "one.h5", NAMES)
    assert_equal_features(target, expected)
    with FeatureStore(expected) as store:
        assert joined == Joined(target, 6, store.points, added=6, replaced=0)
    assert len(seen) == 3
    assert list(target.parent.iterdir()) == [target]


@BOTH
def test_matches_equal_those_of_one_run(match_shards: list[Path], target: Path, tmp_path: Path, links: bool) -> None:
    joined = join(target, match_shards, links=links, names=NAMES)
    expected = write_matches(tmp_path / "one.h5", PAIRS)
    assert_equal_matches(target, expected)
    with MatchStore(expected) as store:
        assert joined == Joined(target, len(PAIRS), store.points, added=len(PAIRS), replaced=0)


@BOTH
def test_joined_again_nothing_changes(
    feature_shards: list[Path], match_shards: list[Path], target: Path, links: bool
) -> None:
    for shards, path in (feature_shards, target), (match_shards, target.with_name("matches.h5")):
        first = join(path, shards, links=links)
        before = state(path)
        again = join(path, shards, links=links)
        assert state(path) == before
        assert (again.items, again.points, again.added, again.replaced) == (first.items, first.points, 0, 0)


def test_shards_that_finish_later_are_added(match_shards: list[Path], target: Path, tmp_path: Path) -> None:
    assert join(target, match_shards[1:2]).added == 6
    assert join(target, match_shards).added == len(PAIRS) - 6
    assert_equal_matches(target, write_matches(tmp_path / "one.h5", PAIRS))


@BOTH
def test_provenances_of_all_shards_are_counted(target: Path, tmp_path: Path, links: bool) -> None:
    other = MADE | {"precision": "fp32"}
    shards = [write_matches(tmp_path / "a.h5", PAIRS[:4]), write_matches(tmp_path / "b.h5", PAIRS[4:], other)]
    join(target, shards, links=links)
    with MatchStore(target) as store:
        assert sorted((entry["by"]["precision"], entry["items"]) for entry in store.provenances.values()) == [
            ("fp32", len(PAIRS) - 4),
            ("int8", 4),
        ]


@BOTH
def test_an_item_that_two_shards_have_is_joined_once(
    match_shards: list[Path], feature_shards: list[Path], target: Path, tmp_path: Path, links: bool
) -> None:
    again = write_matches(tmp_path / "again.h5", PAIRS[2:5])
    assert join(target, [*match_shards, again], links=links).items == len(PAIRS)
    assert_equal_matches(target, write_matches(tmp_path / "one.h5", PAIRS))
    path, again = target.with_name("features.h5"), write_features(tmp_path / "f.h5", NAMES[1:3])
    assert join(path, [*feature_shards, again], links=links).items == len(NAMES)
    assert_equal_features(path, write_features(tmp_path / "one features.h5", NAMES))


@BOTH
def test_items_that_differ_are_an_error(
    match_shards: list[Path], feature_shards: list[Path], target: Path, tmp_path: Path, links: bool
) -> None:
    join(target, match_shards, links=links)
    before = state(target)
    other = write_matches(tmp_path / "other.h5", PAIRS[:1], offset=1)
    with pytest.raises(StoreError, match=r"other\.h5 has another .* \S+ than .*(store|match-0)\.h5: move"):
        join(target, [*match_shards, other], links=links)
    assert state(target) == before and list(target.parent.iterdir()) == [target]
    other = write_features(tmp_path / "other f.h5", NAMES[:1], offset=1)
    with pytest.raises(StoreError, match=r"f\.h5 has another day 1/a\.jpg than"):
        join(target.with_name("f.h5"), [*feature_shards, other], links=links)


@BOTH
def test_a_pair_in_the_opposite_order_is_the_same_pair(target: Path, tmp_path: Path, links: bool) -> None:
    pair, turned = PAIRS[0], Pair(PAIRS[0].b, PAIRS[0].a)
    shards = [tmp_path / "a.h5", tmp_path / "b.h5"]
    for path, stored, versions in (shards[0], pair, (1, 2)), (shards[1], turned, (2, 1)):
        with MatchStore(path, append=MADE) as store:
            store.write(stored, some_matches(3), 20, versions)
    assert join(target, shards, links=links).items == 1
    with MatchStore(target) as store:
        assert store.stored_order(pair) == pair


@BOTH
def test_shards_of_a_retry_replace_items(
    match_shards: list[Path], feature_shards: list[Path], target: Path, tmp_path: Path, links: bool
) -> None:
    retries = [
        write_matches(tmp_path / "r0.h5", PAIRS[:5], offset=1),
        write_matches(tmp_path / "r1.h5", [*PAIRS[4:6], PAIRS[-1]], offset=2),
    ]
    expected = tmp_path / "one.h5"
    write_matches(expected, PAIRS[:4], offset=1)
    write_matches(expected, [*PAIRS[4:6], PAIRS[-1]], offset=2)
    write_matches(expected, PAIRS[6:-1])
    if not links:
        join(target, match_shards)
    assert join(target, match_shards, replacing=retries, links=links).items == len(PAIRS)
    assert_equal_matches(target, expected)
    before = state(target)
    assert join(target, match_shards, replacing=retries, links=links).replaced == 0
    assert state(target) == before

    retry, path = write_features(tmp_path / "f.h5", NAMES[:3], offset=1), target.with_name("f.h5")
    join(path, feature_shards, replacing=[retry], links=links)
    write_features(tmp_path / "one f.h5", NAMES[:3], offset=1)
    assert_equal_features(path, write_features(tmp_path / "one f.h5", NAMES[3:]))


@BOTH
def test_twins_stay_apart(target: Path, tmp_path: Path, links: bool) -> None:
    names = ["a/b.jpg", "a-b.jpg", "c.jpg"]
    pairs = [Pair("a/b.jpg", "c.jpg"), Pair("a-b.jpg", "c.jpg"), Pair("a-b.jpg", "a/b.jpg")]
    shards = [write_matches(tmp_path / f"{i}.h5", [pair], names=names) for i, pair in enumerate(pairs)]
    join(target, shards, links=links, names=names)
    assert_equal_matches(target, write_matches(tmp_path / "one.h5", pairs, names=names), names)
    unaware = write_matches(tmp_path / "unaware.h5", pairs[:1])
    for given, all_names in ([*shards, unaware], ()), ([unaware], names):
        with pytest.raises(StoreError, match=r"unaware\.h5 has the pairs of different images under one name, a-b\.jpg"):
            join(target.with_name("other.h5"), given, links=links, names=all_names)


def test_twins_that_the_target_does_not_keep_apart(target: Path, tmp_path: Path) -> None:
    join(target, [write_matches(tmp_path / "0.h5", [Pair("a/b.jpg", "c.jpg")])])
    names = ["a/b.jpg", "a-b.jpg", "d.jpg"]
    with pytest.raises(StoreError, match=r"store\.h5 has the pairs of different images under one name"):
        join(target, [write_matches(tmp_path / "1.h5", [Pair("a-b.jpg", "d.jpg")], names=names)], names=names)


@BOTH
@pytest.mark.parametrize("damage", ["truncated", "missing", "hloc", "links", "not HDF5", "another kind"])
def test_a_bad_shard_is_named_and_the_target_stays(
    match_shards: list[Path], feature_shards: list[Path], target: Path, links: bool, damage: str
) -> None:
    join(target, match_shards[:1], links=links)
    before, bad = state(target), match_shards[2]
    if damage == "truncated":
        bad.write_bytes(bad.read_bytes()[:-100])
    elif damage == "missing":
        bad.unlink()
    elif damage == "hloc":
        with h5py.File(bad, "w") as file:
            file["a/b/matches0"] = np.zeros(3, np.int16)
    elif damage == "links":
        bad.unlink()
        join(bad, match_shards[3:], links=True)
    elif damage == "not HDF5":
        bad.write_text("no")
    else:
        shutil.copyfile(feature_shards[0], bad)
    with pytest.raises(StoreError) as error:
        join(target, match_shards, links=links)
    assert str(bad) in str(error.value) and "\n" not in str(error.value)
    assert state(target) == before and list(target.parent.iterdir()) == [target]


def test_there_must_be_shards(target: Path) -> None:
    with pytest.raises(InputError, match="no shards to join"):
        join(target, [])


def test_links_never_replace_a_plain_store(match_shards: list[Path], target: Path) -> None:
    join(target, match_shards)
    before = state(target)
    with pytest.raises(StoreError, match="one plain file already"):
        join(target, match_shards, links=True)
    assert state(target) == before


def test_copies_replace_links(match_shards: list[Path], target: Path, tmp_path: Path) -> None:
    join(target, match_shards, links=True)
    assert join(target, match_shards).added == len(PAIRS)
    shutil.rmtree(match_shards[0].parent)
    assert_equal_matches(target, write_matches(tmp_path / "one.h5", PAIRS))
    assert list(target.parent.iterdir()) == [target]


@BOTH
def test_a_full_disk_is_told(
    match_shards: list[Path], target: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    join(target, match_shards[:1], links=links)
    before = state(target)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        join(target, match_shards, links=links)
    monkeypatch.undo()
    assert state(target)[0] == before[0]
    join(target, match_shards, links=links)
    with MatchStore(target) as store:
        assert len(store.pairs(NAMES)) == len(PAIRS)
