"""The orientation of a photo in features.h5: absent where it says nothing, part of the version, and checked."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from lgbatch.errors import ItemError, StoreError
from lgbatch.storage.features import FeatureStore
from lgbatch.types import ORIENTATIONS
from tests.workspace.helpers import OLD, random_features


@pytest.mark.parametrize("count", [5, 2000], ids=["small", "large"])
def test_orientations_are_kept_and_change_the_version(tmp_path: Path, count: int) -> None:
    path, features = tmp_path / "features.h5", random_features(0, count)
    with FeatureStore(path, append=OLD) as store:
        for orientation in ORIENTATIONS:
            store.write(str(orientation), replace(features, orientation=orientation))
    with FeatureStore(path) as store:
        for orientation in ORIENTATIONS:
            assert store.orientation(str(orientation)) == store.read(str(orientation)).orientation == orientation
        assert len({store.record(str(orientation)).version for orientation in ORIENTATIONS}) == 8
    with h5py.File(path, "r") as file:
        assert "orientation" not in file["1"] and file["8/orientation"][()].tolist() == [8]


@pytest.mark.parametrize("value", [[0], [9], [-1], [1, 1], [6.0], 6])
def test_an_invalid_orientation_is_damage(tmp_path: Path, value: object) -> None:
    path = tmp_path / "features.h5"
    with FeatureStore(path, append=OLD) as store:
        store.write("a", random_features(0))
    with h5py.File(path, "r+") as file:
        file["a/orientation"] = np.array(value)
    with FeatureStore(path) as store:
        with pytest.raises(StoreError, match="is damaged"):
            store.orientation("a")
        with pytest.raises(ItemError, match="no features of a"):
            store.read("a")
