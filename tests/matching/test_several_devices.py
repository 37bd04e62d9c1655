"""Several devices at once, for which the CPU stands in: nothing is lost, and nothing hangs."""

import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lgbatch.config import Settings
from lgbatch.matching import engine as workers
from lgbatch.matching.device_backend import DeviceBackend
from lgbatch.matching.engine import match_pairs
from lgbatch.matching.lightglue import Matcher
from lgbatch.pairing.candidates import exhaustive
from lgbatch.runtime.environment import available_cores
from lgbatch.types import Failure, Features, Matches, Pair
from tests.helpers.extraction import cut

EXACT = Settings(device="cpu", precision="fp32")


class Device(Matcher):
    """A matcher whose points stay on what stands in for a GPU, and that tells which pairs it had."""

    def __init__(self, models: Path, number: int) -> None:
        super().__init__(models, EXACT, number=number)
        self._place = DeviceBackend(self.stages)
        self.made: list[tuple[Any, Any]] = []
        self.together = threading.Lock()

    def match(self, pairs: Sequence[tuple[Any, Any]], tokens: int) -> list[Matches]:
        assert self.together.acquire(blocking=False), "two threads on one device"
        try:
            self.made += pairs
            return super().match(pairs, tokens)
        finally:
            self.together.release()


@pytest.mark.weights
def test_every_pair_is_matched_once_and_as_by_one_worker(models: Path, demo_features: Sequence[Features]) -> None:
    features = {f"{i:02}": cut(one, 400 + 30 * i) for i, one in enumerate(demo_features[:7])}
    counts = {name: len(one.keypoints) for name, one in features.items()}
    pairs = exhaustive(sorted(features))
    alone = dict(match_pairs(pairs, counts, features.__getitem__, [Matcher(models, EXACT)]))
    devices = [Device(models, number) for number in range(3)]
    found = list(match_pairs(pairs, counts, features.__getitem__, devices))
    assert Counter(pair for pair, _ in found) == Counter(pairs)
    for pair, matches in found:
        expected = alone[pair]
        assert isinstance(matches, Matches) and isinstance(expected, Matches)
        np.testing.assert_array_equal(matches.indices, expected.indices)
        np.testing.assert_allclose(matches.scores, expected.scores, atol=1e-4)
    assert sum(len(device.made) for device in devices) == len(pairs)
    assert min(len(device.made) for device in devices) > 0


class Broken(Device):
    """Fails in a way that no pair is to blame for."""

    def match(self, pairs: Sequence[tuple[Any, Any]], tokens: int) -> list[Matches]:
        raise SystemExit("the device is gone")


@pytest.mark.weights
def test_a_worker_that_fails_ends_the_loop(models: Path, demo_features: Sequence[Features]) -> None:
    features = {f"{i:02}": cut(one, 300) for i, one in enumerate(demo_features[:7])}
    counts = {name: len(one.keypoints) for name, one in features.items()}
    devices = [Device(models, 0), Broken(models, 1)]
    with pytest.raises(SystemExit, match="the device is gone"):
        list(match_pairs(exhaustive(sorted(features)), counts, features.__getitem__, devices))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("work")]


class Refusing(Device):
    """Fails as ONNX Runtime does."""

    def match(self, pairs: Sequence[tuple[Any, Any]], tokens: int) -> list[Matches]:
        raise RuntimeError("CUDA failure 719")


@pytest.mark.weights
def test_pairs_of_a_device_that_refuses_are_failures(models: Path, demo_features: Sequence[Features]) -> None:
    features = {name: cut(one, 50) for name, one in zip("abc", demo_features, strict=False)}
    counts = {name: len(one.keypoints) for name, one in features.items()}
    found = dict(match_pairs(exhaustive(sorted(features)), counts, features.__getitem__, [Refusing(models, 0)]))
    assert {type(made) for made in found.values()} == {Failure} and len(found) == 3
    assert found[Pair("a", "b")] == Failure("match", "a b", "CUDA failure 719")


@pytest.mark.parametrize(("asked", "opened"), [(0, 3), (2, 2), (9, 3)])
def test_each_gpu_gets_a_matcher(monkeypatch: pytest.MonkeyPatch, asked: int, opened: int) -> None:
    numbers = []

    def matcher(models: Path, settings: Settings, *, number: int = 0) -> SimpleNamespace:
        numbers.append(number)
        return SimpleNamespace(stages=SimpleNamespace(device="cuda"))

    monkeypatch.setattr(workers, "Matcher", matcher)
    monkeypatch.setattr(workers, "gpus", lambda: ("A", "B", "C"))
    made = workers.open_matchers(Path(), Settings(workers=asked))
    assert numbers == list(range(opened)) and len({id(one) for one in made}) == opened


def test_threads_share_a_matcher_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "Matcher", lambda *_: SimpleNamespace(stages=SimpleNamespace(device="cpu")))
    for changes, count in ({}, available_cores()), ({"threads": 3}, 3), ({"threads": 3, "workers": 5}, 5):
        made = workers.open_matchers(Path(), Settings.load(**changes))
        assert len(made) == count and len({id(one) for one in made}) == 1
