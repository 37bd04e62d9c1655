"""The loop over pairs: what is kept of images, and what becomes of batches that do not fit into memory."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from lgbatch.errors import ItemError
from lgbatch.matching.backend import EncodedImage
from lgbatch.matching.engine import match_pairs
from lgbatch.matching.image_cache import EncodedImageCache
from lgbatch.pairing.candidates import exhaustive
from lgbatch.runtime.registry import Shape
from lgbatch.types import Failure, Features, Matches, Pair


def stem(number: float) -> EncodedImage:
    values = np.full((1, 1), number, np.float32)
    return EncodedImage(values, values, values)


def test_a_stem_is_made_once_even_for_many_threads() -> None:
    made: list[str] = []
    gate = threading.Barrier(8)

    def make(name: str) -> EncodedImage:
        made.append(name)
        return stem(float(name))

    cache = EncodedImageCache(make, capacity=20, uses=dict.fromkeys(map(str, range(20)), 9))

    def use(start: int) -> list[float]:
        gate.wait()
        return [float(cache.get(str((start + i) % 20)).x[0, 0]) for i in range(20)]

    with ThreadPoolExecutor(8) as pool:
        for start, values in zip(range(8), pool.map(use, range(8)), strict=True):
            assert values == [(start + i) % 20 for i in range(20)]
    assert sorted(made, key=int) == [str(i) for i in range(20)]


def test_stems_that_were_used_longest_ago_leave() -> None:
    made: list[str] = []

    def make(name: str) -> EncodedImage:
        made.append(name)
        return stem(0)

    cache = EncodedImageCache(make, capacity=2, uses=dict.fromkeys("abc", 9))
    for name in "abacab":
        cache.get(name)
    assert made == ["a", "b", "c", "b"]


def test_features_that_cannot_be_read_fail_every_pair_of_theirs() -> None:
    def make(name: str) -> EncodedImage:
        raise ItemError(f"no features of {name}")

    cache = EncodedImageCache(make, capacity=2, uses={"a": 9})
    for _ in range(2):
        with pytest.raises(ItemError, match="no features of a"):
            cache.get("a")


def test_a_stem_leaves_with_its_last_pair() -> None:
    made: list[str] = []

    def make(name: str) -> EncodedImage:
        made.append(name)
        return stem(0)

    cache = EncodedImageCache(make, capacity=2, uses={"a": 3, "b": 1, "c": 1})
    for name in "abac":  # b is gone when c comes, so that a can stay
        cache.get(name)
    cache.get("a")
    assert made == ["a", "b", "c"]


class Small:
    """Matches each point with itself, and has no memory for more than so many points in a batch."""

    def __init__(self, limit: int, broken: Pair | None = None) -> None:
        self.limit, self.broken = limit, broken
        self.refused: list[int] = []
        self.shrunk: list[int] = []
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
            if self.broken == (str(int(first.x[0, 0])), str(int(second.x[0, 0]))):
                raise ValueError("this pair is broken")
            rows = np.arange(min(len(first.x), len(second.x)), dtype=np.int32)
            matches.append(Matches(np.stack([rows, rows], axis=1), np.ones(len(rows), np.float32)))
        return matches


def features_of(number: int) -> Features:
    points = np.full((10, 2), number, np.float32)
    return Features(points, points[:, 0], points, (8, 6))


@pytest.mark.parametrize("limit", [20, 30, 100])
def test_batches_that_do_not_fit_are_halved_and_nothing_is_lost(limit: int) -> None:
    names = [str(i) for i in range(12)]
    pairs, matcher = exhaustive(names), Small(limit)
    found = dict(match_pairs(pairs, dict.fromkeys(names, 10), lambda name: features_of(int(name)), [matcher] * 2))  # type: ignore[list-item]
    assert found.keys() == set(pairs)
    assert all(isinstance(made, Matches) and len(made.indices) == 10 for made in found.values())
    assert len(matcher.refused) == len(matcher.shrunk) > 0


def test_one_pair_that_fails_takes_no_other_with_it() -> None:
    names = [str(i) for i in range(8)]
    pairs, matcher = exhaustive(names), Small(10_000, broken=Pair("2", "5"))
    found = dict(match_pairs(pairs, dict.fromkeys(names, 10), lambda name: features_of(int(name)), [matcher] * 2))  # type: ignore[list-item]
    failed = {pair: made for pair, made in found.items() if isinstance(made, Failure)}
    assert failed == {Pair("2", "5"): Failure("match", "2 5", "this pair is broken")}
    assert len(found) == len(pairs)


def test_a_pair_that_never_fits_is_a_failure() -> None:
    (told,) = match_pairs([Pair("0", "1")], {"0": 10, "1": 10}, lambda name: features_of(int(name)), [Small(5)])  # type: ignore[list-item]
    assert told == (Pair("0", "1"), Failure("match", "0 1", "Failed to allocate memory for 20 points"))
