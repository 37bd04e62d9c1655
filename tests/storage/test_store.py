"""Stores return items as written, read files of hloc, and report damage in one line."""

import json
import random
from pathlib import Path

import h5py
import numpy as np
import pytest

from lgbatch.errors import ItemError, StoreError
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import MatchStore
from lgbatch.types import Features, Matches, Pair

ROOT = Path(__file__).parents[2]
PROVENANCE = {"extractor": "disk", "max_keypoints": 2048}
NAMES = ["a.jpg", "my photo 1.JPG", "room 2/sub/über 写真.png", ".hidden/..b.jpg", "a-b.jpg"]


def features(i: int) -> Features:
    """Random features for seed i; without keypoints for 0."""
    rng, count = np.random.default_rng(i), i * 37 % 100
    descriptors = rng.standard_normal((count, 128), dtype=np.float32).astype(np.float16).astype(np.float32)
    keypoints = rng.random((count, 2), dtype=np.float32) * 4000
    return Features(keypoints, rng.random(count, dtype=np.float32), descriptors, (4000, 3000 + i))


def matches(i: int) -> tuple[Matches, int]:
    """Random matches for seed i, and the number of keypoints of the first image."""
    rng, count = np.random.default_rng(i), 1 + i * 37 % 100
    first = np.flatnonzero(rng.random(count) < 0.5)
    indices = np.stack([first, rng.permutation(70_000)[: len(first)]], axis=1).astype(np.int32)
    return Matches(indices, rng.random(len(first), dtype=np.float32)), count


def assert_equal(actual: Features | Matches, expected: Features | Matches) -> None:
    assert type(actual) is type(expected)
    for name, value in vars(expected).items():
        assert np.asarray(getattr(actual, name)).dtype == np.asarray(value).dtype
        np.testing.assert_array_equal(getattr(actual, name), value)


def assert_one_line(error: pytest.ExceptionInfo[StoreError], *parts: str) -> None:
    text = str(error.value)
    assert "\n" not in text
    assert all(part in text for part in parts), text


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.h5"


def test_features_are_read_as_written(path: Path) -> None:
    with FeatureStore(path, append=PROVENANCE) as store:
        for i, name in enumerate(NAMES):
            store.write(name, features(i))
        assert_equal(store.read(NAMES[1]), features(1))  # also before the commit
    with FeatureStore(path) as store:
        assert [entry["by"] for entry in store.provenances.values()] == [PROVENANCE]
        assert store.points == sum(len(features(i).keypoints) for i in range(len(NAMES)))
        assert store.names() == sorted(NAMES)
        for i, name in enumerate(NAMES):
            assert_equal(store.read(name), features(i))
            assert store.count(name) == len(features(i).keypoints)
            assert store.image_size(name) == (4000, 3000 + i)
            np.testing.assert_array_equal(store.keypoints(name), features(i).keypoints)
        with pytest.raises(KeyError):
            store.count("b.jpg")
        with pytest.raises(ItemError, match=r"no features of b\.jpg"):
            store.read("b.jpg")


def test_matches_are_read_in_either_order(path: Path) -> None:
    pairs = [Pair(a, b) for a in NAMES for b in NAMES if a < b]
    with MatchStore(path, append=PROVENANCE) as store:
        for i, pair in enumerate(pairs):
            store.write(pair, *matches(i))
    with MatchStore(path) as store:
        assert sorted(store.pairs(NAMES)) == sorted(pairs)
        for i, pair in enumerate(pairs):
            expected = matches(i)[0]
            assert_equal(store.read(pair), expected)
            swapped = store.read(Pair(pair.b, pair.a))
            order = np.argsort(expected.indices[:, 1])
            assert_equal(swapped, Matches(expected.indices[order][:, ::-1], expected.scores[order]))
            assert pair in store and Pair(pair.b, pair.a) in store
            np.testing.assert_array_equal(store.indices(pair), expected.indices)
        assert Pair("a.jpg", "b.jpg") not in store
        with pytest.raises(KeyError):
            store.read(Pair("a.jpg", "b.jpg"))
        assert store.pairs(NAMES[:2]) == [Pair(*NAMES[:2])]


def test_a_pair_without_matches_is_stored(path: Path) -> None:
    with MatchStore(path, append=PROVENANCE) as store:
        for name, count in ("b", 7), ("c", 0):
            store.write(Pair("a", name), Matches(np.zeros((0, 2), np.int32), np.zeros(0, np.float32)), count)
            assert Pair("a", name) in store
            assert store.read(Pair("a", name)).indices.shape == (0, 2)


def test_pairs_of_any_length_are_read_as_written(path: Path) -> None:
    """More lengths than there are templates, alternating, and some too long for a template."""
    counts = [*range(90), 89, 0, 45, *range(90), 14_999, 15_001, 40_000, 15_000, 3]
    written = []
    for i, count in enumerate(counts):
        rng = np.random.default_rng(i)
        first = np.flatnonzero(rng.random(count) < 0.5)
        indices = np.stack([first, rng.permutation(70_000)[: len(first)]], axis=1).astype(np.int32)
        written.append(Matches(indices, rng.random(len(first), dtype=np.float32)))
    half = len(counts) // 2
    for part in slice(half), slice(half, None):
        with MatchStore(path, append=PROVENANCE) as store:
            for i, count in list(enumerate(counts))[part]:
                store.write(Pair(f"é{i % 7}", f"x{i}"), written[i], count, (i, 2**64 - 1))
                assert_equal(store.read(Pair(f"é{i % 7}", f"x{i}")), written[i])
    with MatchStore(path) as store, h5py.File(path, "r") as file:
        for i, count in enumerate(counts):
            pair = Pair(f"é{i % 7}", f"x{i}")
            assert_equal(store.read(pair), written[i])
            assert store.record(pair) == (only_fingerprint(store), (i, 2**64 - 1), len(written[i].indices))
            data = file[f"é{i % 7}/x{i}/matches0"]
            assert data.shape == (count,)
            assert data.dtype == (np.int16 if written[i].indices[:, 1].max(initial=0) < 1 << 15 else np.int32)


def only_fingerprint(store: MatchStore) -> int:
    """The fingerprint of all items of a store."""
    (fingerprint,) = store.provenances
    return fingerprint


def test_the_layout_is_that_of_hloc(path: Path, tmp_path: Path) -> None:
    with FeatureStore(path, append=PROVENANCE) as store:
        for i, name in enumerate(NAMES):
            store.write(name, features(i))
    names = set()

    def visit(_: str, node: h5py.HLObject) -> None:
        if isinstance(node, h5py.Dataset):
            names.add(node.parent.name.strip("/"))

    with h5py.File(path, "r") as file:
        file.visititems(visit)
        assert names == set(NAMES)
        group = file[NAMES[2]]
        shapes = {name: (data.shape, data.dtype) for name, data in group.items()}
        assert shapes == {
            "keypoints": ((74, 2), np.float32),
            "scores": ((74,), np.float32),
            "descriptors": ((128, 74), np.float16),
            "image_size": ((2,), np.int64),
        }
        assert group["keypoints"].attrs["uncertainty"] == 1.0
        np.testing.assert_array_equal(group["descriptors"][()].T, features(2).descriptors)
        assert group["image_size"][()].tolist() == [4000, 3002]
        (entry,) = json.loads(file.attrs["lgbatch"])["made"].items()
        assert entry == (f"{group.attrs['lgbatch'][0]:016x}", {"by": PROVENANCE, "items": 5, "points": 170})
    with MatchStore(tmp_path / "matches.h5", append=PROVENANCE) as store:
        store.write(Pair("x/a b.jpg", "y/z/c.jpg"), *matches(3))
    with h5py.File(tmp_path / "matches.h5", "r") as file:
        group = file["x-a b.jpg/y-z-c.jpg"]
        matches0, scores = group["matches0"][()], group["matching_scores0"][()]
        assert (matches0.dtype, scores.dtype, len(matches0)) == (np.int32, np.float32, 12)
        expected = matches(3)[0]
        np.testing.assert_array_equal(np.flatnonzero(matches0 != -1), expected.indices[:, 0])
        np.testing.assert_array_equal(matches0[matches0 != -1], expected.indices[:, 1])
        np.testing.assert_array_equal(scores[matches0 != -1], expected.scores)


def test_files_written_by_hloc_are_read(path: Path, tmp_path: Path) -> None:
    expected = features(2)
    with h5py.File(path, "w", libver="latest") as file:
        group = file.create_group("mapping/a.jpg")
        group.create_dataset("keypoints", data=np.floor(expected.keypoints).astype(np.float16))
        group.create_dataset("keypoint_scores", data=expected.scores.astype(np.float16))
        group.create_dataset("descriptors", data=expected.descriptors.T.astype(np.float16))
        group.create_dataset("image_size", data=np.array([4000, 3002]))
        group["keypoints"].attrs["uncertainty"] = 2.0
    with FeatureStore(path) as store:
        assert store.provenances == {} and store.image_folder is None
        assert store.names() == ["mapping/a.jpg"]
        actual = store.read("mapping/a.jpg")
        assert actual.keypoints.dtype == actual.scores.dtype == actual.descriptors.dtype == np.float32
        assert actual.descriptors.flags.c_contiguous
        np.testing.assert_array_equal(actual.keypoints, np.floor(expected.keypoints).astype(np.float16))
        np.testing.assert_array_equal(actual.scores, expected.scores.astype(np.float16))
        np.testing.assert_array_equal(actual.descriptors, expected.descriptors)
        assert actual.image_size == (4000, 3002)
    with h5py.File(tmp_path / "matches.h5", "w", libver="latest") as file:
        group = file.create_group("b.jpg/mapping-a.jpg")
        group.create_dataset("matches0", data=np.array([-1, 5, -1, 2], np.int16))
        group.create_dataset("matching_scores0", data=np.array([0, 0.5, 0, 0.25], np.float16))
    with MatchStore(tmp_path / "matches.h5") as store:
        pair = Pair("mapping/a.jpg", "b.jpg")
        assert store.pairs([*pair]) == [Pair(pair.b, pair.a)]
        assert_equal(store.read(pair), Matches(np.array([[2, 3], [5, 1]], np.int32), np.array([0.25, 0.5], np.float32)))


def test_inconsistent_features_raise_an_item_error(path: Path) -> None:
    with h5py.File(path, "w") as file:
        for name, (keypoints, columns, scores) in {"short": (5, 2, 4), "wide": (5, 3, 5), "none": (5, 2, None)}.items():
            file[f"{name}/keypoints"] = np.zeros((keypoints, columns), np.float32)
            file[f"{name}/descriptors"] = np.zeros((128, keypoints), np.float32)
            file[f"{name}/image_size"] = np.array([10, 10])
            if scores is not None:
                file[f"{name}/scores"] = np.zeros(scores, np.float32)
    with FeatureStore(path) as store:
        assert store.names() == ["none", "short", "wide"]
        for name in store.names():
            with pytest.raises(ItemError, match=f"features of {name}"):
                store.read(name)


def test_the_image_folder_is_recorded(path: Path, tmp_path: Path) -> None:
    for folder in tmp_path / "ä b", tmp_path / "c", tmp_path / "c":
        with FeatureStore(path, append=PROVENANCE) as store:
            store.set_image_folder(folder)
        with FeatureStore(path) as store:
            assert store.image_folder == folder


def test_a_file_of_another_program_is_not_appended_to(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["a/keypoints"] = np.zeros((5, 2))
    before = path.read_bytes()
    with pytest.raises(StoreError) as error:
        FeatureStore(path, append=PROVENANCE)
    assert_one_line(error, str(path), "not made by lgbatch", "--workspace")
    assert path.read_bytes() == before


@pytest.mark.parametrize("append", [None, PROVENANCE])
@pytest.mark.parametrize("content", [b"", b"not \n HDF5", "random", "truncated", "folder"])
def test_a_file_that_is_not_a_store_raises_a_one_line_error(
    path: Path, content: bytes | str, append: dict[str, object]
) -> None:
    if content == "folder":
        path.mkdir()
    elif content == "truncated":
        with FeatureStore(path, append=PROVENANCE) as store:
            store.write("a", features(1))
        path.write_bytes(path.read_bytes()[:-100])
    else:
        path.write_bytes(random.Random(0).randbytes(5000) if isinstance(content, str) else content)
    with pytest.raises(StoreError) as error:
        FeatureStore(path, append=append)
    assert_one_line(error, "store.h5")


def test_damage_in_a_store_raises_a_one_line_error(path: Path) -> None:
    with FeatureStore(path, append=PROVENANCE) as store:
        for i in range(20):
            store.write(f"{i}.jpg", features(i))
    data = path.read_bytes()
    for part, way_out in (b"10.jpg", "repair"), (b'{"', "move it away"):  # a name, and the provenance table
        assert part in data
        path.write_bytes(data.replace(part, part[::-1]))
        with pytest.raises(StoreError) as error, FeatureStore(path, append=PROVENANCE) as store:
            store.names()
        assert_one_line(error, str(path), "is damaged", way_out)


def test_a_missing_file_or_folder_raises_a_one_line_error(path: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError) as error:
        FeatureStore(path)
    assert_one_line(error, "no store.h5 in", "run the stage that writes it")
    with pytest.raises(StoreError) as error:
        FeatureStore(tmp_path / "none" / "store.h5", append=PROVENANCE)
    assert_one_line(error, "store.h5", "No such file")


def test_an_item_cannot_be_written_twice(path: Path) -> None:
    with FeatureStore(path, append=PROVENANCE) as store:
        store.write("a.jpg", features(1))
        with pytest.raises(StoreError) as error:
            store.write("a.jpg", features(2))
        assert_one_line(error, "a.jpg", str(path))
        assert_equal(store.read("a.jpg"), features(1))
