"""Matches of other settings or of changed features: kept, computed again, refused or left out."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from lgbatch.errors import StoreError
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import MatchStore
from lgbatch.types import Pair
from lgbatch.workspace.staleness import drop_outdated, plan_matching, usable_pairs
from tests.workspace.helpers import NAMES, NEW, OLD, identity_matches, image_records, random_features, refusal

PAIRS = [Pair("a.jpg", "b c.jpg"), Pair("a.jpg", "day 1/a.jpg"), Pair("b c.jpg", "day 1/a.jpg")]
"""The first two are stored, the second one in the opposite direction."""


def test_valid_pairs_are_kept(features_path: Path, matches_path: Path) -> None:
    before = matches_path.read_bytes()
    for on_change in "refuse", "recompute", "keep":
        with MatchStore(matches_path, append={"threshold": 0.1}) as store:
            plan = plan_matching(store, PAIRS, image_records(features_path), on_change)
            assert (plan.missing, plan.matched_pairs, plan.matches) == (PAIRS[2:], 1, 3)
            assert plan.failures == ()
    assert matches_path.read_bytes() == before


def test_pairs_of_other_settings_are_refused_kept_or_recomputed(features_path: Path, matches_path: Path) -> None:
    records = image_records(features_path)
    with MatchStore(matches_path, append={"threshold": 0.2}) as store:
        with pytest.raises(StoreError) as error:
            plan_matching(store, PAIRS, records, "refuse")
        assert "2 pairs were matched with threshold 0.1 (now 0.2): " in refusal(error)
        assert plan_matching(store, PAIRS, records, "keep").missing == PAIRS[2:]
        plan = plan_matching(store, PAIRS[:1], records, "recompute")
        assert (plan.missing, plan.matches) == (PAIRS[:1], 0)
        store.remove(PAIRS[0])
        store.write(PAIRS[0], identity_matches(2), 5)
        drop_outdated(store, "recompute")
    with MatchStore(matches_path) as store:
        assert store.pairs(NAMES) == PAIRS[:1] and store.points == 2


def test_matches_of_changed_features_are_never_used(features_path: Path, matches_path: Path) -> None:
    with FeatureStore(features_path, append=OLD) as store:
        store.remove("b c.jpg")
        store.write("b c.jpg", random_features(50))
    records = image_records(features_path)
    with MatchStore(matches_path, append={"threshold": 0.1}) as store:
        with pytest.raises(StoreError) as error:
            plan_matching(store, PAIRS, records, "refuse")
        assert "1 pair was matched with features that have changed since (a.jpg b c.jpg)" in refusal(error)
        assert set(plan_matching(store, PAIRS, records, "recompute").missing) == {PAIRS[0], PAIRS[2]}
        plan = plan_matching(store, PAIRS, records, "keep")
        assert (plan.missing, plan.matches) == (PAIRS[2:], 0)
        assert [(failure.name, failure.stage) for failure in plan.failures] == [("1 pair", "match")]
        versions = {name: record.version for name, record in records.items()}
        assert usable_pairs(store, PAIRS, versions) == [Pair("a.jpg", "day 1/a.jpg")]


def test_matches_stay_valid_if_the_same_features_are_computed_again(features_path: Path, matches_path: Path) -> None:
    with FeatureStore(features_path, append=NEW) as store:
        store.remove("b c.jpg")
        store.write("b c.jpg", random_features(1))
    with MatchStore(matches_path, append={"threshold": 0.1}) as store:
        assert plan_matching(store, PAIRS, image_records(features_path), "refuse").missing == PAIRS[2:]


def test_items_of_other_tools_have_a_version_and_are_usable(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["a.jpg/keypoints"] = np.zeros((3, 2), np.float16)
        file["b.jpg/keypoints"] = np.ones((4, 2), np.float16)
    records = image_records(tmp_path / "f.h5")
    summary = [(record.fingerprint, record.keypoints, record.photo) for record in records.values()]
    assert summary == [(0, 3, None), (0, 4, None)]
    assert records["a.jpg"].version != records["b.jpg"].version
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["a.jpg/b.jpg/matches0"] = np.array([2, -1, 0])
        file["a.jpg/b.jpg/matching_scores0"] = np.ones(3)
    with MatchStore(tmp_path / "m.h5") as store:
        record = store.record(Pair("b.jpg", "a.jpg"))
        assert record is not None and record.matches == 2
        listed = [Pair("b.jpg", "a.jpg"), Pair("a.jpg", "c.jpg")]
        assert usable_pairs(store, listed, {"a.jpg": 1, "b.jpg": 2}) == listed[:1]
