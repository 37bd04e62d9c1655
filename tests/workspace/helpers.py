"""Settings, features and matches for the tests of staleness."""

from pathlib import Path

import numpy as np
import pytest

from lgbatch.errors import DatabaseError, StoreError
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.provenance import ImageRecord
from lgbatch.types import Features, Matches

OLD, NEW = {"max_keypoints": 1024, "resize": 1024}, {"max_keypoints": 2048, "resize": 1024}
NAMES = ["a.jpg", "b c.jpg", "day 1/a.jpg"]


def random_features(seed: int, count: int = 5) -> Features:
    rng = np.random.default_rng(seed)
    descriptors = rng.standard_normal((count, 128), dtype=np.float32)
    return Features(rng.random((count, 2), dtype=np.float32), rng.random(count, dtype=np.float32), descriptors, (8, 6))


def identity_matches(count: int) -> Matches:
    indices = np.stack([np.arange(count), np.arange(count)], axis=1).astype(np.int32)
    return Matches(indices, np.ones(count, np.float32))


def image_records(features_path: Path) -> dict[str, ImageRecord]:
    with FeatureStore(features_path) as store:
        return {name: store.record(name) for name in store.names()}


def refusal(error: pytest.ExceptionInfo[StoreError | DatabaseError]) -> str:
    """The message of an error, which must be one line that names the way out."""
    message = str(error.value)
    assert "\n" not in message and "--on-change recompute" in message
    return message
