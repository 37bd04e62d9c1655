"""Matching on several devices at once, with the CPU in their place: no pair is lost, no thread outlives an error."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lgbatch.config import Settings
from lgbatch.errors import LgbatchError
from lgbatch.matching import capacity, engine
from lgbatch.matching.capacity import GPU_THREADS
from lgbatch.matching.device_backend import DeviceBackend
from lgbatch.matching.engine import match_pairs
from lgbatch.matching.lightglue import Matcher, no_matches
from lgbatch.pairing.candidates import exhaustive
from lgbatch.runtime import devices
from lgbatch.runtime.environment import available_cores
from lgbatch.runtime.registry import Shape
from lgbatch.types import Failure, Features, Matches, Pair
from tests.helpers.extraction import cut

FP32 = Settings(extractor="disk", device="cpu", precision="fp32")


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


class SharedMatcher(Matcher):
    """A matcher with DeviceBackend on the CPU, for several threads. Records what its sessions and threads do."""

    def __init__(self, models: Path) -> None:
        super().__init__(models, FP32)
        self._backend = backend = DeviceBackend(self.stages)
        self.running, self.packs, self.overlapped = 0, 0, False
        for stage, session in backend._sessions.items():
            session.run_bound = self.watched(session.run_bound)  # type: ignore[method-assign]
            session.run_into = self.watched(session.run_into, packs=stage == "pack")  # type: ignore[method-assign]

    def watched(self, run: Callable[..., Any], *, packs: bool = False) -> Callable[..., Any]:
        """A run that fails if another one of the device is not finished."""

        def watch(*args: Any) -> Any:
            assert self.running == 0, "two stages at once"
            self.running += 1
            self.packs += packs
            try:
                return run(*args)
            finally:
                self.running -= 1

        return watch

    def keypoints_read(self) -> None:
        self.overlapped = self.overlapped or self.running > 0


@pytest.mark.weights
@pytest.mark.parametrize("group", [1, 4])
def test_threads_of_a_device_read_while_it_runs_and_give_the_matches_of_one(
    models: Path, demo_features: Sequence[Features], monkeypatch: pytest.MonkeyPatch, group: int
) -> None:
    features = {f"{i:02}": cut(full, 300 + 30 * i) for i, full in enumerate(demo_features[:8])}
    counts = {name: len(image.keypoints) for name, image in features.items()}
    pairs = exhaustive(sorted(features))
    expected = dict(match_pairs(pairs, counts, features.__getitem__, [Matcher(models, FP32)]))
    device = SharedMatcher(models)
    monkeypatch.setattr(capacity, "batch_tokens", lambda *_: 1500)
    monkeypatch.setattr(capacity, "group_tokens", lambda *_: 1500 * group)

    def read(name: str) -> Features:
        time.sleep(0.02)
        device.keypoints_read()
        return features[name]

    outcomes = list(match_pairs(pairs, counts, read, [device] * GPU_THREADS))
    assert Counter(pair for pair, _ in outcomes) == Counter(pairs) and device.overlapped
    for pair, matches in outcomes:
        reference = expected[pair]
        assert isinstance(matches, Matches) and isinstance(reference, Matches)
        np.testing.assert_array_equal(matches.indices, reference.indices)
        np.testing.assert_allclose(matches.scores, reference.scores, atol=1e-4)


@pytest.mark.weights
def test_pairs_that_are_left_fill_batches(models: Path, demo_features: Sequence[Features]) -> None:
    device = SharedMatcher(models)
    images = [device.encode(cut(full, 300)) for full in demo_features[:6]]
    pairs = [(first, second) for i, first in enumerate(images) for second in images[:i]]
    device.stage_trace = trace = []
    device.match(pairs, 2400)
    stages = [stage for stage, _ in trace]
    assert stages.count("layer0") == 4  # of four pairs at most
    # A batch of a later layer may come from two or three batches of the layer before.
    assert device.packs <= len(images) + 2 * 3 * len(stages)
    trace.clear()
    for start in range(0, len(pairs), 4):
        device.match(pairs[start : start + 4], 2400)
    assert len(stages) < len(trace)  # the same batches of the first layer, but the others are not refilled


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


def open_gpus(monkeypatch: pytest.MonkeyPatch, *kinds: str) -> list[int]:
    """Simulate GPUs of which each runs matching as "precision device". Returns the ids of those that are opened."""
    device_ids = []

    def open_fake(models: Path, settings: Settings, *, device_id: int = 0) -> SimpleNamespace:
        device_ids.append(device_id)
        precision, device = kinds[device_id].split()
        stages = SimpleNamespace(device=device, precision=precision, shape=Shape(), id=device_id)
        return SimpleNamespace(stages=stages)

    devices._warn.cache_clear()
    monkeypatch.setattr(engine, "Matcher", open_fake)
    monkeypatch.setattr(engine, "choose_device", lambda requested: "cuda")
    monkeypatch.setattr(engine, "gpus", lambda: kinds)
    return device_ids


@pytest.mark.parametrize(("setting", "opened"), [(0, 3), (2, 2), (9, 3)])
def test_each_gpu_gets_a_matcher(monkeypatch: pytest.MonkeyPatch, setting: int, opened: int) -> None:
    device_ids = open_gpus(monkeypatch, *["fp16 cuda"] * 3)
    matchers = engine.open_matchers(Path(), Settings(workers=setting))
    assert device_ids == list(range(opened)) and len({id(matcher) for matcher in matchers}) == opened


@pytest.mark.parametrize("fallback", ["int8 cpu", "fp16 cpu", "fp32 cuda"])
def test_a_gpu_that_runs_otherwise_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fallback: str
) -> None:
    open_gpus(monkeypatch, "fp16 cuda", fallback, "fp16 cuda")
    assert [matcher.stages.id for matcher in engine.open_matchers(Path(), Settings())] == [0, 2] * GPU_THREADS  # type: ignore[attr-defined]
    precision, device = fallback.split()
    line = f"GPU 1 is not used: matching would run there in {precision} on {device}, but runs in fp16 on cuda elsewhere"
    assert capsys.readouterr().err == f"lgbatch: {line}\n"


def test_the_first_gpu_may_be_the_one_that_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    open_gpus(monkeypatch, "int8 cpu", "fp16 cuda")
    matchers = engine.open_matchers(Path(), Settings())
    assert len(matchers) == GPU_THREADS and {matcher.stages.precision for matcher in matchers} == {"fp16"}


def test_gpus_that_all_fall_back_are_threads_of_one_matcher(monkeypatch: pytest.MonkeyPatch) -> None:
    open_gpus(monkeypatch, "int8 cpu", "int8 cpu")
    matchers = engine.open_matchers(Path(), Settings(threads=5))
    assert len(matchers) == 5 and len({id(matcher) for matcher in matchers}) == 1


def test_threads_share_a_matcher_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    stages = SimpleNamespace(device="cpu", precision="int8", shape=Shape())
    monkeypatch.setattr(engine, "Matcher", lambda *_: SimpleNamespace(stages=stages))
    for changes, count in ({}, available_cores()), ({"threads": 3}, 3), ({"threads": 3, "workers": 5}, 5):
        matchers = engine.open_matchers(Path(), Settings.load(**changes))
        assert len(matchers) == count and len({id(matcher) for matcher in matchers}) == 1


def test_fewer_threads_start_if_the_memory_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "available_cores", lambda: 64)
    workers = {}
    for gigabytes in (0, 2, 8, 1000):
        monkeypatch.setattr(capacity, "available_memory", lambda gigabytes=gigabytes: gigabytes << 30)
        for precision in ("int8", "fp32"):
            stages: Any = SimpleNamespace(device="cpu", precision=precision, shape=Shape())
            workers[gigabytes, precision] = capacity.cpu_workers(stages, 4096)
    assert {workers[0, precision] for precision in ("int8", "fp32")} == {1}
    assert {workers[1000, precision] for precision in ("int8", "fp32")} == {64}
    assert 1 < workers[8, "fp32"] < workers[2, "int8"] * 2 < 64 and workers[2, "fp32"] < workers[2, "int8"]


class CountingMatcher:
    """A stand-in for a matcher on a GPU. Records the tokens and the pairs of its batches."""

    def __init__(self, memory: int, lost_after: int = 10**9) -> None:
        self.stages = SimpleNamespace(
            device="cuda", precision="fp16", shape=Shape(), memory=memory, shrink=self.run_small, weights=""
        )
        self.calls: list[tuple[int, int]] = []
        self.lost_after, self.runs = lost_after, 0

    def run_small(self) -> None:
        if self.runs > self.lost_after:
            raise RuntimeError("CUDA failure 700: an illegal memory access was encountered")

    def encode(self, features: Features) -> Features:
        self.runs += 1
        self.run_small()
        return features

    def match(self, pairs: Sequence[tuple[Any, Any]], tokens: int) -> list[Matches]:
        self.runs += len(pairs)
        self.run_small()
        time.sleep(0.001)
        self.calls.append((tokens, len(pairs)))
        return [no_matches() for _ in pairs]


def blank(count: int) -> Features:
    points = np.zeros((count, 2), np.float32)
    return Features(points, points[:, 0], points, (8, 6))


def test_each_gpu_has_batches_of_its_own_size() -> None:
    large, small = CountingMatcher(memory=64 << 30), CountingMatcher(memory=2 << 30)
    names = [f"{i:03}" for i in range(80)]
    matchers: Any = [large, small]
    outcomes = list(match_pairs(exhaustive(names), dict.fromkeys(names, 1024), lambda _: blank(1024), matchers))
    assert len(outcomes) == 3160 and all(isinstance(outcome, Matches) for _, outcome in outcomes)
    assert {tokens for tokens, _ in large.calls} == {capacity.TOKENS["cuda"]}
    (tokens,) = {tokens for tokens, _ in small.calls}
    assert tokens == capacity.batch_tokens(small.stages, 1024) < capacity.TOKENS["cuda"] / 2  # type: ignore[arg-type]
    assert max(pairs for _, pairs in large.calls) == capacity.TOKENS["cuda"] // 2048


@pytest.mark.parametrize("lost_after", [0, 30])
def test_a_device_that_does_not_recover_ends_the_run(lost_after: int) -> None:
    """The first error may come when an image is encoded, or when a batch is matched."""
    names, outcomes = [f"{i:02}" for i in range(20)], []
    matchers: Any = [CountingMatcher(memory=64 << 30, lost_after=lost_after)]
    with pytest.raises(LgbatchError, match=r"does not recover \(CUDA failure 700.*run the command again") as raised:
        for outcome in match_pairs(exhaustive(names), dict.fromkeys(names, 2048), lambda _: blank(2048), matchers):
            outcomes.append(outcome)
    assert "\n" not in str(raised.value)
    assert not [outcome for _, outcome in outcomes if isinstance(outcome, Failure)]
