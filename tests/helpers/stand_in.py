"""Stand-ins for the networks: random features without a model, and matches of keypoints with equal rows."""

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
"""Keypoints of each image, and matches of each pair."""


class _Extractor:
    def __init__(self, models: Path, settings: Settings, at_once: int = 1) -> None:
        self.at_once, self.batch, self.provenance = at_once, 1, {"extractor": settings.extractor, "weights": "none"}

    def extract(self, photos: Sequence[Photo]) -> list[Features]:
        rng = np.random.default_rng(0)
        points = rng.random((COUNT, 2)).astype(np.float32)
        unit = np.full((COUNT, 128), 128**-0.5, np.float32)
        return [Features(points * photo.size, np.ones(COUNT, np.float32), unit, photo.size) for photo in photos]


class _Matcher:
    stages = SimpleNamespace(weights="none", precision="fp32", device="cpu", shape=Shape(), shrink=lambda: None)

    def __init__(self, models: Path, settings: Settings) -> None:
        pass

    def encode(self, features: Features) -> EncodedImage:
        return EncodedImage(features.keypoints, features.keypoints, features.keypoints)

    def match(self, pairs: Sequence[tuple[EncodedImage, EncodedImage]], tokens: int) -> list[Matches]:
        same = np.arange(COUNT, dtype=np.int32)
        return [Matches(np.stack([same, same], axis=1), np.ones(COUNT, np.float32)) for _ in pairs]


class StandIn:
    """Patches that make extraction and matching use the stand-ins."""

    @staticmethod
    def use(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(extractors, "Extractor", _Extractor)
        monkeypatch.setattr(match, "open_matchers", lambda *arguments: [_Matcher(*arguments)] * available_cores())

    @staticmethod
    def break_features(monkeypatch: pytest.MonkeyPatch, broken: str, reads: list[str]) -> None:
        """Reading the features of image `broken`, or of all images if it is empty, fails. `reads` logs all reads."""
        original = FeatureStore.read

        def read(store: FeatureStore, name: str) -> Features:
            reads.append(name)
            if broken in ("", name):
                raise ItemError(f"no features of {name}")
            return original(store, name)

        monkeypatch.setattr(FeatureStore, "read", read)
