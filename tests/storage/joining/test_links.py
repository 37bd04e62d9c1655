"""Stores of links: read by lgbatch, h5py and hloc, moved with their shards, and never changed."""

import resource
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest

from lgbatch.cli.info import describe, format_infos
from lgbatch.errors import ItemError, StoreError
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.joining import shard_files
from lgbatch.storage.joining.join import join
from lgbatch.storage.matches import MatchStore
from lgbatch.storage.upkeep.pack import pack
from lgbatch.storage.upkeep.remove import remove_absent, remove_images
from lgbatch.types import Pair
from tests.storage.joining.conftest import (
    MADE,
    NAMES,
    PAIRS,
    assert_equal_features,
    assert_equal_matches,
    some_features,
    write_features,
    write_matches,
)


@pytest.fixture
def linked(feature_shards: list[Path], match_shards: list[Path], tmp_path: Path) -> Path:
    """A folder with a features.h5 and a matches.h5 of links."""
    folder = tmp_path / "out"
    folder.mkdir()
    join(folder / "features.h5", feature_shards, links=True)
    join(folder / "matches.h5", match_shards, links=True)
    return folder


def test_groups_of_one_shard_are_one_link(linked: Path) -> None:
    with h5py.File(linked / "matches.h5") as file:
        whole = {name for name in file if isinstance(file.get(name, getlink=True), h5py.ExternalLink)}
        assert whole == {name.replace("/", "-") for name in NAMES[1:-1]}
        link = file["day 1-a.jpg"].get("top.jpg", getlink=True)
        assert (link.filename, link.path) == ("../shards/match-1.h5", "/day 1-a.jpg/top.jpg")


def test_folders_that_are_moved_together(linked: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for name in "out", "shards":
        shutil.move(tmp_path / name, tmp_path / "elsewhere" / name)
    out = tmp_path / "elsewhere" / "out"
    assert_equal_features(out / "features.h5", write_features(tmp_path / "f.h5", NAMES))
    assert_equal_matches(out / "matches.h5", write_matches(tmp_path / "m.h5", PAIRS))
    (tmp_path / "short").symlink_to(out / "features.h5")
    assert_equal_features(tmp_path / "short", tmp_path / "f.h5")


def test_other_programs_read_links(linked: Path, tmp_path: Path) -> None:
    write_features(tmp_path / "f.h5", NAMES)
    write_matches(tmp_path / "m.h5", PAIRS)
    with h5py.File(linked / "features.h5") as file, h5py.File(tmp_path / "f.h5") as expected:
        for name in NAMES:
            assert sorted(file[name]) == sorted(expected[name])
            np.testing.assert_array_equal(file[name]["keypoints"][()], expected[name]["keypoints"][()])
            assert file[name]["keypoints"].attrs["uncertainty"] == 1
    with h5py.File(linked / "matches.h5") as file, h5py.File(tmp_path / "m.h5") as expected:
        for pair in PAIRS:
            path = "/".join(name.replace("/", "-") for name in pair)
            np.testing.assert_array_equal(file[path]["matches0"][()], expected[path]["matches0"][()])


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_bad_shard_is_named(linked: Path, feature_shards: list[Path], match_shards: list[Path], damage: str) -> None:
    for shard in feature_shards[0], match_shards[0]:
        data = shard.read_bytes()
        shard.unlink()
        if damage == "truncated":
            shard.write_bytes(data[:-100])
    with FeatureStore(linked / "features.h5") as features, MatchStore(linked / "matches.h5") as matches:
        assert features.names() == sorted(NAMES)
        assert features.points > 0
        assert len(features.keypoints(NAMES[2])) > 0
        for read in features.record, features.keypoints, features.read:
            with pytest.raises(StoreError, match=r"extract-0\.h5 is (missing|damaged)"):
                read(NAMES[0])
        for look in matches.record, matches.read:
            with pytest.raises(StoreError, match=r"match-0\.h5 is (missing|damaged)"):
                look(PAIRS[0])


def test_damage_within_a_shard_is_named(linked: Path, feature_shards: list[Path], match_shards: list[Path]) -> None:
    for shard, item, key in (
        (feature_shards[0], NAMES[0], "keypoints"),
        (match_shards[0], "day 1-a.jpg/day 1-b.jpg", "matches0"),
    ):
        with h5py.File(shard, "r+") as file:
            del file[item][key]
            file[item][key] = np.zeros((2, 2, 2))
    with FeatureStore(linked / "features.h5") as features, MatchStore(linked / "matches.h5") as matches:
        with pytest.raises(StoreError, match=r"extract-0\.h5 is damaged \(day 1/a\.jpg: keypoints is an array"):
            features.keypoints(NAMES[0])
        with pytest.raises(ItemError, match=r"no features of day 1/a\.jpg"):
            features.read(NAMES[0])
        with pytest.raises(StoreError, match=r"match-0\.h5 is damaged \(day 1/a\.jpg day 1/b\.jpg: matches0 is an"):
            matches.read(PAIRS[0])


def test_only_links_to_the_listed_shards_are_followed(linked: Path, tmp_path: Path) -> None:
    write_features(tmp_path / "secret.h5", ["s.jpg"])
    write_matches(tmp_path / "secret pairs.h5", PAIRS[:1])
    with h5py.File(linked / "features.h5", "r+") as file:
        file["s.jpg"] = h5py.ExternalLink("../secret.h5", "/s.jpg")
        file["soft.jpg"] = h5py.SoftLink("/" + NAMES[0])
    with h5py.File(linked / "matches.h5", "r+") as file:
        del file["day 1-a.jpg/day 1-b.jpg"]
        file["day 1-a.jpg/day 1-b.jpg"] = h5py.ExternalLink("../secret pairs.h5", "/day 1-a.jpg/day 1-b.jpg")
    with FeatureStore(linked / "features.h5") as features, MatchStore(linked / "matches.h5") as matches:
        assert "soft.jpg" not in features
        for read in features.record, features.keypoints:
            with pytest.raises(StoreError, match=r"a link to \.\./secret\.h5, which is not one of its shards"):
                read("s.jpg")
        with pytest.raises(StoreError, match=r"secret pairs\.h5, which is not one of its shards"):
            matches.read(PAIRS[0])


def test_a_shard_that_was_changed_is_named(linked: Path, feature_shards: list[Path]) -> None:
    with h5py.File(feature_shards[0], "r+") as file:
        del file[NAMES[0]]
        del file[NAMES[1]]
        file[NAMES[1]] = h5py.SoftLink("/" + NAMES[0])
    with FeatureStore(linked / "features.h5") as store:
        for name in NAMES[:2]:
            for read in store.record, store.keypoints, store.read:
                with pytest.raises(StoreError, match=rf"extract-0\.h5 is damaged \(it has no /{name}, to which"):
                    read(name)


def test_a_plain_store_follows_no_link(tmp_path: Path) -> None:
    plain = write_features(tmp_path / "plain.h5", NAMES[:1])
    write_features(tmp_path / "other.h5", NAMES[1:])
    with h5py.File(plain, "r+") as file:
        file["x.jpg"] = h5py.ExternalLink("other.h5", "/x.jpg")
    with FeatureStore(plain) as store:
        assert store.names() == NAMES[:1]


def test_links_are_never_changed(linked: Path) -> None:
    files = linked / "features.h5", linked / "matches.h5"
    before = [path.read_bytes() for path in files]
    (linked / "photos").mkdir()
    for change in (
        lambda: FeatureStore(files[0], append=MADE),
        lambda: MatchStore(files[1], append=MADE),
        lambda: pack(files[0]),
        lambda: pack(files[1], linked / "packed.h5"),
        lambda: remove_images(*files, NAMES[:1]),
    ):
        with pytest.raises(StoreError, match=r"only links to \d shards, .* join them into a plain file$"):
            change()
    assert [remove_absent(path) for path in files] == [0, 0]
    assert [path.read_bytes() for path in files] == before
    assert sorted(path.name for path in linked.iterdir()) == ["features.h5", "matches.h5", "photos"]


def test_pairs_of_links_stay_with_an_image_that_is_removed(linked: Path, tmp_path: Path) -> None:
    """Of a plain features.h5: it is not changed either."""
    plain = write_features(tmp_path / "features.h5", NAMES)
    before = plain.read_bytes()
    with pytest.raises(StoreError, match="only links to 4 shards"):
        remove_images(plain, linked / "matches.h5", NAMES[:1])
    assert plain.read_bytes() == before


def test_info_counts_the_shards(linked: Path, tmp_path: Path) -> None:
    features, matches = infos = describe(linked)
    assert (features["items"], features["shards"], features["image_folder"]) == (6, 3, "/photos")
    assert (matches["items"], matches["shards"]) == (15, 4)
    assert "shards    4, which have the items" in format_infos(infos)
    (plain,) = describe(write_features(tmp_path / "f.h5", NAMES))
    assert plain["shards"] == 0 and "which have" not in format_infos([plain])


@pytest.fixture
def few_files() -> Iterator[None]:
    """A process may open 150 files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (150, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("few_files")
def test_more_shards_than_files_that_a_process_may_open(tmp_path: Path) -> None:
    names = [f"{i:03d}.jpg" for i in range(200)]
    pairs = [Pair(a, b) for a, b in zip(names, [*names[1:], names[0]], strict=True)]
    shards = [write_features(tmp_path / f"f{name}.h5", [name]) for name in names]
    match_shards = [write_matches(tmp_path / f"m{pair.a}.h5", [pair]) for pair in pairs]
    for links in True, False:
        join(tmp_path / "f.h5", shards, links=links)
        join(tmp_path / "m.h5", match_shards, links=links)
        with FeatureStore(tmp_path / "f.h5") as features, MatchStore(tmp_path / "m.h5") as matches:
            for _ in range(2):
                assert sum(features.count(name) for name in names) == features.points
                assert sum(len(matches.read(pair).indices) for pair in pairs) == matches.points
        if links:
            (tmp_path / "f.h5").unlink()
            (tmp_path / "m.h5").unlink()


def test_threads_read_while_shards_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_files, "MAX_OPEN_SHARDS", 2)
    names = [f"{i:02d}.jpg" for i in range(12)]
    join(tmp_path / "f.h5", [write_features(tmp_path / f"{name}.h5", [name]) for name in names], links=True)
    with FeatureStore(tmp_path / "f.h5") as store, ThreadPoolExecutor(4) as pool:
        for name, features in zip(names * 20, pool.map(store.read, names * 20), strict=True):
            expected = some_features(sum(name.encode()))
            np.testing.assert_array_equal(features.keypoints, expected.keypoints)


def test_shards_are_closed_with_the_store(linked: Path, feature_shards: list[Path]) -> None:
    with FeatureStore(linked / "features.h5") as store:
        store.read(NAMES[0])
    with h5py.File(feature_shards[0], "r+") as file:  # HDF5 refuses while the file is open for reading
        assert list(file)
