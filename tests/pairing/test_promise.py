"""Which pairs to try first."""

from pathlib import Path

import numpy as np

from lgbatch.pairing.promise import most_promising, pair_hints
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import MatchStore
from lgbatch.types import ImageRef, Matches, Pair
from tests.helpers.synthetic import exif_photo
from tests.workspace.helpers import random_features

PAIRS = [Pair("a", "x"), Pair("b", "x"), Pair("c", "x"), Pair("y", "a"), Pair("y", "c")]


def test_the_best_by_any_hint_for_any_image_come_first() -> None:
    hints = np.array([[1.0, 2, 3, 5, 4], [3.0, 1, 2, -np.inf, -np.inf]])
    assert most_promising(PAIRS, ["x"], hints, 2) == [Pair("a", "x"), Pair("c", "x")]
    assert most_promising(PAIRS, ["x", "y"], hints, 3) == [Pair("a", "x"), Pair("c", "x"), Pair("y", "a")]
    assert most_promising(PAIRS, ["x", "y"], hints, 9) == PAIRS
    assert most_promising(PAIRS, ["x", "y"], hints, 0) == []


def test_a_hint_that_tells_nothing_does_not_count() -> None:
    hints = np.array([[-np.inf] * 5, [1.0, 2, 3, 1, 2]])
    assert most_promising(PAIRS, ["x"], hints, 1) == [Pair("c", "x")]


def test_hints_are_matches_order_similarity_and_distance(tmp_path: Path) -> None:
    names = ["1.jpg", "2.jpg", "3.jpg", "4.jpg"]
    for name, gps in zip(names, [(50.0, 8.0, 0.0), (50.001, 8.0, 0.0), (50.1, 8.0, 0.0), None], strict=True):
        exif_photo(tmp_path, name, (8, 6), gps=gps)
    refs = [ImageRef(name, tmp_path / name) for name in names]
    pairs = [Pair("1.jpg", "2.jpg"), Pair("3.jpg", "1.jpg"), Pair("1.jpg", "4.jpg")]
    with (
        FeatureStore(tmp_path / "features.h5", append={}) as features,
        MatchStore(tmp_path / "matches.h5", append={}) as store,
    ):
        for name, seed in zip(names, [0, 1, 0, 2], strict=True):  # 3 has the features of 1
            features.write(name, random_features(seed, 40))
        indices = np.array([[0, 1], [2, 2]], np.int32)
        store.write(pairs[1], Matches(indices, np.ones(2, np.float32)), 40)
    with FeatureStore(tmp_path / "features.h5") as features, MatchStore(tmp_path / "matches.h5") as store:
        matches, order, similarity, nearness = pair_hints(pairs, refs, features, store)
    assert matches.tolist() == [-np.inf, 2, -np.inf]
    assert order.tolist() == [-1, -2, -3]
    assert similarity.argmax() == 1 and abs(similarity[1] - 1) < 1e-3
    assert nearness[0] > nearness[1] > nearness[2] == -np.inf
    assert abs(nearness[0] + 111.32) < 1
