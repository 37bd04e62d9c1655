"""Shards as several processes would write them, and the one store that a single run would have written."""

from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import MatchStore
from lgbatch.types import Features, Matches, Pair, PhotoFile

MADE = {"matcher": "lightglue", "precision": "int8"}
NAMES = ["day 1/a.jpg", "day 1/b.jpg", "day 2/deep/a.jpg", "day 2/é.jpg", "top.jpg", "x.jpg"]
PAIRS = [Pair(*pair) for pair in combinations(NAMES, 2)]

WriteShards = Callable[..., list[Path]]


def some_features(seed: int) -> Features:
    """Features of a number of keypoints, orientation and size that depend on the seed."""
    rng, count = np.random.default_rng(seed), 5 + seed % 7
    return Features(
        keypoints=rng.random((count, 2), np.float32) * 100,
        scores=rng.random(count, np.float32),
        descriptors=rng.random((count, 16), np.float32).astype(np.float16).astype(np.float32),
        image_size=(200 + seed, 100),
        orientation=1 + seed % 8,
    )


def some_matches(seed: int) -> Matches:
    """0 to 8 matches of the first of 20 keypoints."""
    rng, count = np.random.default_rng(seed), seed % 9
    first = np.sort(rng.permutation(20)[:count])
    return Matches(np.stack([first, rng.permutation(20)[:count]], 1).astype(np.int32), rng.random(count, np.float32))


def write_features(path: Path, names: Sequence[str], made: dict[str, str] = MADE, offset: int = 0) -> Path:
    """Write a features.h5. `offset` changes the features."""
    with FeatureStore(path, append=made) as store:
        store.set_image_folder(Path("/photos"))
        for name in names:
            seed = sum(name.encode()) + offset
            store.write(name, some_features(seed), PhotoFile(seed, 10, 20))
    return path


def write_matches(
    path: Path, pairs: Sequence[Pair], made: dict[str, str] = MADE, offset: int = 0, names: Sequence[str] = ()
) -> Path:
    """Write a matches.h5. `offset` changes the matches; of every third pair it stores a geometry."""
    with MatchStore(path, append=made) as store:
        store.separate_twins(names or [name for pair in pairs for name in pair])
        for pair in pairs:
            seed = sum(" ".join(pair).encode()) + offset
            store.write(pair, some_matches(seed), 20, (seed, seed + 1))
            if seed % 3 == 0:
                store.set_geometry(pair, b"geometry of " + " ".join(pair).encode())
    return path


@pytest.fixture
def feature_shards(tmp_path: Path) -> list[Path]:
    """Three shards of the images NAMES."""
    (tmp_path / "shards").mkdir(exist_ok=True)
    parts = NAMES[:2], NAMES[2:3], NAMES[3:]
    return [write_features(tmp_path / "shards" / f"extract-{i}.h5", part) for i, part in enumerate(parts)]


@pytest.fixture
def match_shards(tmp_path: Path) -> list[Path]:
    """Four shards of PAIRS, some with all pairs of an image, others with some of them; the last one is empty."""
    (tmp_path / "shards").mkdir(exist_ok=True)
    parts: tuple[list[Pair], ...] = PAIRS[:3], PAIRS[3:9], PAIRS[9:], []
    return [write_matches(tmp_path / "shards" / f"match-{i}.h5", part) for i, part in enumerate(parts)]


def assert_equal_features(path: Path, expected: Path) -> None:
    """The stores have the same names, records, arrays, provenances and totals."""
    with FeatureStore(path) as one, FeatureStore(expected) as other:
        assert one.names() == other.names()
        assert (one.provenances, one.points, one.image_folder) == (other.provenances, other.points, other.image_folder)
        for name in other.names():
            assert one.record(name) == other.record(name)
            assert (one.image_size(name), one.orientation(name)) == (other.image_size(name), other.orientation(name))
            features, same = one.read(name), other.read(name)
            np.testing.assert_array_equal(one.keypoints(name), same.keypoints)
            for key in "keypoints", "scores", "descriptors":
                np.testing.assert_array_equal(getattr(features, key), getattr(same, key))


def assert_equal_matches(path: Path, expected: Path, names: Sequence[str] = NAMES) -> None:
    """The stores have the same pairs, records, arrays, geometries, provenances and totals."""
    with MatchStore(path) as one, MatchStore(expected) as other:
        assert sorted(one.groups()) == sorted(other.groups())
        assert sorted(one.pairs(names)) == sorted(other.pairs(names))
        assert (one.provenances, one.points) == (other.provenances, other.points)
        for pair in other.pairs(names):
            for either in pair, Pair(pair.b, pair.a):
                assert one.record(either) == other.record(either)
                assert one.stored_order(either) == pair
                found, same = one.read(either), other.read(either)
                np.testing.assert_array_equal(found.indices, same.indices)
                np.testing.assert_array_equal(found.scores, same.scores)
            assert one.geometry(pair) == other.geometry(pair)
