"""What stands in for the networks: features that need no model, and matches of each keypoint with its like."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lgbatch.config import Settings
from lgbatch.errors import ItemError
from lgbatch.features import extractors
from lgbatch.matching import match
from lgbatch.matching.backend import EncodedImage
from lgbatch.runtime.environment import available_cores
from lgbatch.runtime.registry import Shape
from lgbatch.storage.features import FeatureStore
from lgbatch.types import Features, Matches, Photo

COUNT = 20


class _Extractor:
    def __init__(self, models: Path, settings: Settings) -> None:
        self.batch, self.provenance = 1, {"extractor": "disk", "weights": "none"}

    def extract(self, photos: Sequence[Photo]) -> list[Features]:
        rng = np.random.default_rng(0)
        points = rng.random((COUNT, 2)).astype(np.float32)
        unit = np.full((COUNT, 128), 128**-0.5, np.float32)
        return [Features(points * photo.size, np.ones(COUNT, np.float32), unit, photo.size) for photo in photos]


class _Matcher:
    stages = SimpleNamespace(weights="none", precision="fp32", device="cpu", shape=Shape())

    def __init__(self, models: Path, settings: Settings) -> None:
        pass

    def encode(self, features: Features) -> EncodedImage:
        return EncodedImage(features.keypoints, features.keypoints, features.keypoints)

    def match(self, pairs: Sequence[tuple[EncodedImage, EncodedImage]], tokens: int) -> list[Matches]:
        same = np.arange(COUNT, dtype=np.int32)
        return [Matches(np.stack([same, same], axis=1), np.ones(COUNT, np.float32)) for _ in pairs]


class StandIn:
    """Puts the stand-ins where extraction and matching look for the networks."""

    @staticmethod
    def use(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(extractors, "Extractor", _Extractor)
        monkeypatch.setattr(match, "open_matchers", lambda *given: [_Matcher(*given)] * available_cores())

    @staticmethod
    def break_features(monkeypatch: pytest.MonkeyPatch, name: str, read: list[str]) -> None:
        """Features of `name`, or of all images if it is empty, cannot be read; `read` gets each name that was."""
        original = FeatureStore.read

        def damaged(store: FeatureStore, wanted: str) -> Features:
            read.append(wanted)
            if name in ("", wanted):
                raise ItemError(f"no features of {wanted}")
            return original(store, wanted)

        monkeypatch.setattr(FeatureStore, "read", damaged)
