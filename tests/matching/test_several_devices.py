"""Matching on several devices at once, with the CPU in their place: no pair is lost, no thread outlives an error."""

import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lgbatch.config import Settings
from lgbatch.matching import engine
from lgbatch.matching.device_backend import DeviceBackend
from lgbatch.matching.engine import match_pairs
from lgbatch.matching.lightglue import Matcher
from lgbatch.pairing.candidates import exhaustive
from lgbatch.runtime.environment import available_cores
from lgbatch.types import Failure, Features, Matches, Pair
from tests.helpers.extraction import cut

FP32 = Settings(device="cpu", precision="fp32")


class DeviceMatcher(Matcher):
    """A matcher with DeviceBackend on the CPU. Records its pairs, and fails if two threads use it at once."""

    def __init__(self, models: Path, device_id: int) -> None:
        super().__init__(models, FP32, device_id=device_id)
        self._backend = DeviceBackend(self.stages)
        self.matched: list[tuple[Any, Any]] = []
        self.lock = threading.Lock()

    def match(self, pairs: Sequence[tuple[Any, Any]], tokens: int) -> list[Matches]:
        assert self.lock.acquire(blocking=False), "two threads on one device"
        try:
            self.matched += pairs
            return super().match(pairs, tokens)
        finally:
            self.lock.release()


@pytest.mark.weights
def test_every_pair_is_matched_once_with_the_matches_of_one_worker(
    models: Path, demo_features: Sequence[Features]
) -> None:
    features = {f"{i:02}": cut(full, 400 + 30 * i) for i, full in enumerate(demo_features[:7])}
    counts = {name: len(image.keypoints) for name, image in features.items()}
    pairs = exhaustive(sorted(features))
    expected = dict(match_pairs(pairs, counts, features.__getitem__, [Matcher(models, FP32)]))
    devices = [DeviceMatcher(models, i) for i in range(3)]
    outcomes = list(match_pairs(pairs, counts, features.__getitem__, devices))
    assert Counter(pair for pair, _ in outcomes) == Counter(pairs)
    for pair, matches in outcomes:
        reference = expected[pair]
        assert isinstance(matches, Matches) and isinstance(reference, Matches)
        np.testing.assert_array_equal(matches.indices, reference.indices)
        np.testing.assert_allclose(matches.scores, reference.scores, atol=1e-4)
    assert sum(len(device.matched) for device in devices) == len(pairs)
    assert min(len(device.matched) for device in devices) > 0


class ExitingMatcher(DeviceMatcher):
    """Raises an error that is no Exception, so that it is not recorded as a Failure of pairs."""

    def match(self, pairs: Sequence[tuple[Any, Any]], tokens: int) -> list[Matches]:
        raise SystemExit("the device is lost")


@pytest.mark.weights
def test_an_error_of_a_worker_ends_the_loop_and_all_threads(models: Path, demo_features: Sequence[Features]) -> None:
    features = {f"{i:02}": cut(full, 300) for i, full in enumerate(demo_features[:7])}
    counts = {name: len(image.keypoints) for name, image in features.items()}
    devices = [DeviceMatcher(models, 0), ExitingMatcher(models, 1)]
    before = set(threading.enumerate())
    with pytest.raises(SystemExit, match="the device is lost"):
        list(match_pairs(exhaustive(sorted(features)), counts, features.__getitem__, devices))
    assert set(threading.enumerate()) <= before


class FailingMatcher(DeviceMatcher):
    """Raises the RuntimeError that ONNX Runtime raises for a CUDA error."""

    def match(self, pairs: Sequence[tuple[Any, Any]], tokens: int) -> list[Matches]:
        raise RuntimeError("CUDA failure 719")


@pytest.mark.weights
def test_the_pairs_of_a_failing_device_are_failures(models: Path, demo_features: Sequence[Features]) -> None:
    features = {name: cut(full, 50) for name, full in zip("abc", demo_features, strict=False)}
    counts = {name: len(image.keypoints) for name, image in features.items()}
    devices = [FailingMatcher(models, 0)]
    outcomes = dict(match_pairs(exhaustive(sorted(features)), counts, features.__getitem__, devices))
    assert {type(outcome) for outcome in outcomes.values()} == {Failure} and len(outcomes) == 3
    assert outcomes[Pair("a", "b")] == Failure("match", "a b", "CUDA failure 719")


@pytest.mark.parametrize(("setting", "opened"), [(0, 3), (2, 2), (9, 3)])
def test_each_gpu_gets_a_matcher(monkeypatch: pytest.MonkeyPatch, setting: int, opened: int) -> None:
    device_ids = []

    def open_fake(models: Path, settings: Settings, *, device_id: int = 0) -> SimpleNamespace:
        device_ids.append(device_id)
        return SimpleNamespace(stages=SimpleNamespace(device="cuda"))

    monkeypatch.setattr(engine, "Matcher", open_fake)
    monkeypatch.setattr(engine, "gpus", lambda: ("A", "B", "C"))
    matchers = engine.open_matchers(Path(), Settings(workers=setting))
    assert device_ids == list(range(opened)) and len({id(matcher) for matcher in matchers}) == opened


def test_threads_share_a_matcher_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "Matcher", lambda *_: SimpleNamespace(stages=SimpleNamespace(device="cpu")))
    for changes, count in ({}, available_cores()), ({"threads": 3}, 3), ({"threads": 3, "workers": 5}, 5):
        matchers = engine.open_matchers(Path(), Settings.load(**changes))
        assert len(matchers) == count and len({id(matcher) for matcher in matchers}) == 1
