"""The matching engine: the cache of encoded images, and batches and pairs that fail."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lgbatch.errors import ItemError
from lgbatch.matching import capacity
from lgbatch.matching.backend import EncodedImage
from lgbatch.matching.engine import match_pairs
from lgbatch.matching.image_cache import EncodedImageCache
from lgbatch.pairing.candidates import exhaustive
from lgbatch.runtime.registry import Shape
from lgbatch.types import Failure, Features, Matches, Pair


def encoded(value: float) -> EncodedImage:
    values = np.full((1, 1), value, np.float32)
    return EncodedImage(values, values, values)


def test_an_image_is_encoded_once_for_many_threads() -> None:
    calls: list[str] = []
    barrier = threading.Barrier(8)

    def encode(name: str) -> EncodedImage:
        calls.append(name)
        return encoded(float(name))

    cache = EncodedImageCache(encode, capacity=20, uses=dict.fromkeys(map(str, range(20)), 9))

    def get_all(start: int) -> list[float]:
        barrier.wait()
        images: list[Any] = [cache.get(str((start + i) % 20)) for i in range(20)]
        return [float(image.x[0, 0]) for image in images]

    with ThreadPoolExecutor(8) as pool:
        for start, values in zip(range(8), pool.map(get_all, range(8)), strict=True):
            assert values == [(start + i) % 20 for i in range(20)]
    assert sorted(calls, key=int) == [str(i) for i in range(20)]


def test_the_least_recently_used_image_is_dropped() -> None:
    calls: list[str] = []

    def encode(name: str) -> EncodedImage:
        calls.append(name)
        return encoded(0)

    cache = EncodedImageCache(encode, capacity=2, uses=dict.fromkeys("abc", 9))
    for name in "abacab":
        cache.get(name)
    assert calls == ["a", "b", "c", "b"]


def test_an_image_is_dropped_after_its_last_pair() -> None:
    calls: list[str] = []

    def encode(name: str) -> EncodedImage:
        calls.append(name)
        return encoded(0)

    cache = EncodedImageCache(encode, capacity=2, uses={"a": 3, "b": 1, "c": 1})
    for name in "abac":  # b has left before c comes, so that a stays
        cache.get(name)
    cache.get("a")
    assert calls == ["a", "b", "c"]


class FakeMatcher:
    """Matches point i with point i. Out of memory for a batch of more than `limit` points; raises for one pair."""

    def __init__(self, limit: int, failing: Pair | None = None) -> None:
        self.limit, self.failing = limit, failing
        self.refused: list[int] = []
        """Points of each batch that did not fit."""
        self.shrunk: list[int] = []
        """Batches refused before each call of `shrink`."""
        self.stages = SimpleNamespace(device="cpu", precision="fp32", shape=Shape(), shrink=self.shrink)

    def shrink(self) -> None:
        self.shrunk.append(len(self.refused))
        raise RuntimeError("CUDA failure 700: an illegal memory access")

    def encode(self, features: Features) -> EncodedImage:
        return EncodedImage(features.keypoints, features.keypoints, features.keypoints)

    def match(self, pairs: Sequence[tuple[EncodedImage, EncodedImage]], tokens: int) -> list[Matches]:
        points = sum(len(first.x) + len(second.x) for first, second in pairs)
        if points > self.limit:
            self.refused.append(points)
            raise RuntimeError(f"Failed to allocate memory for {points} points\nat line 1")
        matches = []
        for first, second in pairs:
            if self.failing == (str(int(first.x[0, 0])), str(int(second.x[0, 0]))):
                raise ValueError("this pair fails")
            rows = np.arange(min(len(first.x), len(second.x)), dtype=np.int32)
            matches.append(Matches(np.stack([rows, rows], axis=1), np.ones(len(rows), np.float32)))
        return matches


def features_of(number: int) -> Features:
    points = np.full((10, 2), number, np.float32)
    return Features(points, points[:, 0], points, (8, 6))


def match_all(pairs: Sequence[Pair], names: Sequence[str], matcher: FakeMatcher) -> dict[Pair, Matches | Failure]:
    """Match with two threads; each image has ten keypoints."""
    matchers: Any = [matcher] * 2
    outcomes = list(match_pairs(pairs, dict.fromkeys(names, 10), lambda name: features_of(int(name)), matchers))
    assert len(outcomes) == len(pairs)
    return dict(outcomes)


@pytest.mark.parametrize("limit", [20, 30, 100])
def test_batches_that_do_not_fit_are_halved_and_no_pair_is_lost(limit: int) -> None:
    names = [str(i) for i in range(12)]
    pairs, matcher = exhaustive(names), FakeMatcher(limit)
    outcomes = match_all(pairs, names, matcher)
    assert outcomes.keys() == set(pairs)
    assert all(isinstance(outcome, Matches) and len(outcome.indices) == 10 for outcome in outcomes.values())
    assert len(matcher.refused) == len(matcher.shrunk) > 0


def test_a_pair_that_fails_leaves_the_others_of_its_batch_matched() -> None:
    names = [str(i) for i in range(8)]
    pairs, matcher = exhaustive(names), FakeMatcher(10_000, failing=Pair("2", "5"))
    outcomes = match_all(pairs, names, matcher)
    failures = {pair: outcome for pair, outcome in outcomes.items() if isinstance(outcome, Failure)}
    assert failures == {Pair("2", "5"): Failure("match", "2 5", "this pair fails")}
    assert len(outcomes) == len(pairs)


def test_all_pairs_of_an_image_that_cannot_be_read_share_one_failure() -> None:
    """One object with one short traceback: with one exception raised again for each pair, 1,600 pairs took 93 s."""
    names = [str(i) for i in range(1601)]
    pairs, reads = [Pair("0", name) for name in names[1:]], []

    def read(name: str) -> Features:
        reads.append(name)
        if name == "0":
            raise ItemError("no features of 0")
        return features_of(int(name))

    matchers: Any = [FakeMatcher(10_000)] * 2
    outcomes = dict(match_pairs(pairs, dict.fromkeys(names, 10), read, matchers))
    assert outcomes.keys() == set(pairs) and reads.count("0") == 1
    (failure,) = {id(outcome): outcome for outcome in outcomes.values()}.values()
    assert failure == Failure("match", "0", "no features of 0")
    assert isinstance(failure, Failure) and failure.traceback.count("\n") < 20


def test_a_cpu_encodes_few_large_images_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each encoding needs memory that grows with the square of the keypoints."""
    running, most, lock = 0, 0, threading.Lock()

    class SlowMatcher(FakeMatcher):
        def encode(self, features: Features) -> EncodedImage:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            time.sleep(0.01)
            with lock:
                running -= 1
            return super().encode(features)

    names = [str(i) for i in range(12)]
    for allowed in (1, 3):
        monkeypatch.setattr(capacity, "concurrent_stems", lambda *_, allowed=allowed: allowed)
        most, matchers = 0, [SlowMatcher(10_000)] * 8
        counts = dict.fromkeys(names, 10)
        outcomes = list(match_pairs(exhaustive(names), counts, lambda name: features_of(int(name)), matchers))  # type: ignore[arg-type]
        assert len(outcomes) == 66 and most == allowed


def test_a_pair_that_never_fits_is_a_failure() -> None:
    outcomes = match_all([Pair("0", "1")], ["0", "1"], FakeMatcher(5))
    assert outcomes == {Pair("0", "1"): Failure("match", "0 1", "Failed to allocate memory for 20 points")}
