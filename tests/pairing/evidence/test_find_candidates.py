"""Candidates from looks, order and positions of photos whose features are stored."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from lgbatch.config import Settings
from lgbatch.errors import InputError
from lgbatch.pairing.candidates import RigPlace
from lgbatch.pairing.evidence.find import Photos, alike, find_candidates
from lgbatch.pairing.evidence.lists import Source, union
from lgbatch.pairing.evidence.order import order_of_names
from lgbatch.pairing.evidence.vocabulary import read_vocabulary
from lgbatch.storage.features import FeatureStore
from tests.helpers.synthetic import exif_photo
from tests.pairing.helpers import across, scene, two_scenes, write_features

SETTINGS = Settings(neighbours=4)


def photos(folder: Path, count: int = 24) -> Photos:
    made = two_scenes(count // 2)
    write_features(folder / "features.h5", made)
    return Photos(sorted(made), folder / "features.h5", vocabulary=folder / "vocabulary.npz", threads=2)


def test_photos_that_look_alike_rank_before_those_that_follow_each_other(tmp_path: Path) -> None:
    given = photos(tmp_path)
    found = find_candidates(given, SETTINGS)
    assert (found.pairs[:, 0] < found.pairs[:, 1]).all() and len(np.unique(found.pairs, axis=0)) == len(found.pairs)
    best = found.best(4)
    looks = best.where((best.sources & Source.ORDER) == 0)
    assert across(looks.as_pairs()) == 0 and len(looks.pairs) >= 12
    assert found.score[(found.pairs[:, 0] - found.pairs[:, 1]) % 2 == 0].min() > 60
    assert found.score[(found.pairs[:, 0] - found.pairs[:, 1]) % 2 == 1].max() < 20
    assert across(union(given.names, [alike(given, SETTINGS)]).best(4).as_pairs()) == 0


def test_the_same_photos_give_the_same_candidates(tmp_path: Path) -> None:
    given = photos(tmp_path)
    first = find_candidates(given, SETTINGS)
    for again in find_candidates(given, SETTINGS), find_candidates(Photos(given.names, given.features), SETTINGS):
        for name in "pairs", "rank", "score", "sources":
            np.testing.assert_array_equal(getattr(again, name), getattr(first, name))


def test_photos_without_usable_features_are_paired_by_order_only(tmp_path: Path) -> None:
    made = two_scenes(12)
    made |= {"003a.jpg": made["003a.jpg"][:0], "005b.jpg": np.eye(20, 8, dtype=np.float32)}
    made["009a.jpg"] = np.full_like(made["009a.jpg"], np.nan)
    write_features(tmp_path / "features.h5", made)
    names = sorted([*made, "007c.jpg"])  # the store lacks one
    found = find_candidates(Photos(names, tmp_path / "features.h5"), SETTINGS)
    for name in "003a.jpg", "005b.jpg", "007c.jpg", "009a.jpg":
        own = (found.pairs == names.index(name)).any(1)
        assert own.any() and not found.score[own].any() and (found.sources[own] == Source.ORDER).all()


def test_gps_positions_of_exif_are_used(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    made = {f"{i}.jpg": values for i, values in enumerate(scene(0, 4) + scene(5, 4))}
    for i, name in enumerate(made):
        exif_photo(folder, name, (8, 6), gps=(50 + i % 4 * 0.01, 8 + i // 4 * 1e-5, 0.0))
    write_features(tmp_path / "features.h5", made, folder=folder)
    found = find_candidates(Photos(sorted(made), tmp_path / "features.h5"), Settings(neighbours=1))
    near = found.where((found.sources & Source.NEAR) > 0)
    moved = folder.rename(tmp_path / "moved")
    again = find_candidates(Photos(sorted(made), tmp_path / "features.h5", moved), Settings(neighbours=1))
    np.testing.assert_array_equal(again.sources, found.sources)
    assert near.pairs.tolist() == [[0, 4], [1, 5], [2, 6], [3, 7]] and not near.rank.any()


def test_new_photos_are_compared_by_the_words_of_the_first_ones(tmp_path: Path) -> None:
    given, path = photos(tmp_path), tmp_path / "vocabulary.npz"
    with FeatureStore(given.features) as features:
        words = read_vocabulary(given.names, features, path)
    written = path.read_bytes()
    write_features(given.features, {f"new{i}.jpg": values for i, values in enumerate(scene(9, 30))})
    with FeatureStore(given.features) as features:
        np.testing.assert_array_equal(read_vocabulary(features.names(), features, path), words)
        assert path.read_bytes() == written
        many = features.names() * 2  # more than four times as many as before
        assert not np.array_equal(read_vocabulary(many, features, path), words) and path.read_bytes() != written
    write_features(tmp_path / "other.h5", two_scenes(12), extractor="another")
    with FeatureStore(tmp_path / "other.h5") as features:
        read_vocabulary(features.names(), features, path)
        renewed = path.read_bytes()
        assert renewed != written
        path.write_bytes(b"damaged")
        read_vocabulary(features.names(), features, path)
        assert path.read_bytes() == renewed
        with pytest.raises(InputError, match=r"cannot write the vocabulary to .*missing"):
            read_vocabulary(features.names(), features, tmp_path / "missing" / "v.npz")


def test_global_descriptors_in_hlocs_layout_replace_the_looks(tmp_path: Path) -> None:
    given = photos(tmp_path)
    rng, path = np.random.default_rng(0), tmp_path / "global.h5"
    vectors = rng.standard_normal((24, 16))
    with h5py.File(path, "w") as file:
        for i, name in enumerate(given.names[:-1]):  # photo i looks like photo i + 12
            file[f"{name}/global_descriptor"] = (vectors[i % 12] + 0.01 * vectors[i]).astype(np.float16)
    settings = Settings(neighbours=1, global_descriptors=str(path))
    pairs = union(given.names, [alike(given, settings)]).best(1).pairs.tolist()
    assert set(map(tuple, pairs)) >= {(i, i + 12) for i in range(11)} and all(23 not in pair for pair in pairs)
    both = find_candidates(given, settings)
    assert {(i, i + 12) for i in range(11)} <= set(map(tuple, both.best(1).pairs.tolist()))
    with pytest.raises(InputError, match=r"cannot read global descriptors from .*features\.h5 \(no image has one\)"):
        alike(given, Settings(global_descriptors=str(given.features)))
    for wrong in (np.full(4, np.nan), np.full(4, np.inf), np.zeros(0)):
        with h5py.File(path, "w") as file:
            file[f"{given.names[3]}/global_descriptor"] = wrong
        with pytest.raises(InputError, match=f"that of {given.names[3]} is not finite numbers"):
            alike(given, settings)


def test_images_rank_by_their_distance_in_the_order_and_those_of_a_frame_come_first() -> None:
    names = ["a1", "a2", "a10", "b1", "b2"]
    rig = {name: RigPlace(name[0], name[1:]) for name in names}
    plain, rigged = (union(names, [order_of_names(names, 3, places)]) for places in ({}, rig))
    assert dict(zip(plain.as_pairs(), plain.rank.tolist(), strict=True)) == {
        ("a1", "a2"): 0,
        ("a1", "a10"): 2,
        ("a2", "a10"): 0,
        ("a2", "b1"): 2,
        ("a10", "b1"): 0,
        ("a10", "b2"): 2,
        ("b1", "b2"): 0,
    }
    assert dict(zip(rigged.as_pairs(), rigged.rank.tolist(), strict=True)) == {
        ("a1", "a2"): 0,
        ("a1", "a10"): 2,
        ("a1", "b1"): 0,
        ("a1", "b2"): 0,
        ("a2", "a10"): 0,
        ("a2", "b1"): 0,
        ("a2", "b2"): 0,
        ("b1", "b2"): 0,
    }
