"""One row of `lgbatch bench match`: an engine, its timed turns, and the figures computed from them."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from lgbatch.bench import machine
from lgbatch.bench.engines import Engine, Published, Scene
from lgbatch.bench.operations import exits_per_layer, full_depth_trace, operations, padding_fraction
from lgbatch.matching.lightglue import StageTrace
from lgbatch.types import IntArray, Pair

Item = TypeVar("Item")
MatchesByPair = Mapping[Pair, IntArray]
"""Matches of each pair: rows (K, 2) into the keypoints of both images."""

_GOLDEN_RATIO = (5**0.5 - 1) / 2


class Row:
    """An engine with the matches of its first run and the durations of its turns."""

    def __init__(
        self,
        name: str,
        open_engine: Callable[[], Engine],
        scene: Scene,
        *,
        fixed: bool = False,
        same_pairs_as: "Row | None" = None,
    ) -> None:
        """`open_engine` is called by `prepare`, not here.

        `fixed`: the engine runs at fixed depth. `same_pairs_as`: an earlier row whose timed pairs this one matches too.
        """
        self.name, self.fixed = name, fixed
        self._open_engine, self._scene, self._same_pairs_as = open_engine, scene, same_pairs_as
        self._timed_pairs = scene.pairs
        self.seconds: list[float] = []

    def prepare(self, seconds: float) -> None:
        """Open the engine, match once, and choose the pairs of a turn.

        A turn of the published network takes about `seconds`. One of lgbatch takes three times as long, to keep all
        workers busy. One at fixed depth takes half as long: its pairs all cost the same per keypoint, and matching all
        pairs once would take minutes.
        """
        elapsed, self._memory_mb = machine.measure_memory(lambda: self._first_run(seconds / 2))
        self.matches, self._trace = self._engine.matches(), self._engine.trace()
        if not self.fixed and not self._same_pairs_as:
            turn = seconds if self._is_published else 3 * seconds
            self._timed_pairs = self._sample(turn, elapsed / len(self._timed_pairs))

    def _first_run(self, seconds: float) -> float:
        """Open the engine and match the first pairs. Returns the seconds that matching them took."""
        self._engine = self._open_engine()
        warm_up = spread(self._timed_pairs, 2)
        seconds_per_pair = self._time(warm_up) / len(warm_up)
        if self._same_pairs_as:
            self._timed_pairs = self._same_pairs_as._timed_pairs
        elif self.fixed:
            self._timed_pairs = self._sample(seconds, seconds_per_pair)
        return self._time(self._timed_pairs)

    def _sample(self, seconds: float, seconds_per_pair: float) -> list[Pair]:
        """As many pairs as fit, in multiples of four: with fewer, some workers of a batching engine would be idle."""
        least = 2 if self._is_published and self.fixed else 4
        return spread(self._scene.pairs, int(seconds / seconds_per_pair) // 4 * 4 or least)

    @property
    def _is_published(self) -> bool:
        return isinstance(self._engine, Published)

    def run_turn(self) -> None:
        """Match the timed pairs once more and record the duration."""
        self.seconds.append(self._time(self._timed_pairs))

    def _time(self, pairs: Sequence[Pair]) -> float:
        start = time.perf_counter()
        self._engine.match(pairs)
        return time.perf_counter() - start

    def rates(self) -> list[float]:
        """Pairs per second of each turn, scaled to the average pair of the scene."""
        return [self._average_pairs() / seconds for seconds in self.seconds]

    def _average_pairs(self) -> float:
        """How many average pairs of the scene a turn is worth, by operations: a sample may be easier or harder."""
        pairs = self._scene.pairs
        if len(self._timed_pairs) == len(pairs):
            return len(pairs)
        if self._same_pairs_as:
            return self._same_pairs_as._average_pairs()
        if self.fixed:
            timed, total = (self._operations(self._full_depth_trace(each)) for each in (self._timed_pairs, pairs))
        else:
            timed, total = self._operations(self._engine.trace()), self._operations(self._trace)
        return len(pairs) * timed / total

    def _full_depth_trace(self, pairs: Sequence[Pair]) -> StageTrace:
        counts, layers = self._scene.counts, self._scene.shape.layers
        stems = [name for pair in pairs for name in pair]
        if self._engine.once_per_image:
            stems = list(dict.fromkeys(stems))
        sides = [(counts[a], counts[b]) for a, b in pairs]
        return full_depth_trace(sides, [counts[name] for name in stems], layers)

    def _operations(self, trace: StageTrace | None) -> int:
        return operations(trace or [], self._scene.descriptor_dim, self._scene.shape, published=self._is_published)

    def result(self, adaptive: "Row | None", fixed: "Row | None", matrix_gflops: float | None) -> dict[str, Any]:
        """Return the figures of the row, ready for JSON.

        `adaptive` and `fixed` are the rows of the published network, `matrix_gflops` is the machine's matrix rate.
        """
        seconds = float(np.median(self.seconds))
        expected = fixed if self.fixed else adaptive
        gflops = self._operations(self._engine.trace()) / seconds / 1e9 or None
        return {
            "name": self.name,
            "pairs_per_second": float(np.median(self.rates())),
            "pairs_per_second_by_turn": self.rates(),
            "timed_pairs": len(self._timed_pairs),
            "ratio_to_adaptive": self._ratio(adaptive),
            "ratio_to_fixed": self._ratio(fixed),
            "agreement": None if expected is None else agreement(self.matches, expected.matches),
            "recall": None if expected is None else recall(self.matches, expected.matches),
            "matched_pairs": len(self.matches),
            "matches": sum(len(rows) for rows in self.matches.values()),
            "gflops": gflops,
            "share_of_matrix_rate": gflops / matrix_gflops if gflops and matrix_gflops else None,
            "padding": None if self._trace is None else padding_fraction(self._trace),
            "stops": None if self._trace is None else exits_per_layer(self._trace, self._scene.shape.layers),
            "memory_mb": self._memory_mb,
        }

    def _ratio(self, other: "Row | None") -> float | None:
        if other is None:
            return None
        return float(np.median(np.array(self.rates()) / np.array(other.rates())))


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """Choose up to `count` items, evenly spread, in order. A smaller sample is a subset of a larger one."""
    order = sorted(range(len(items)), key=lambda i: i * _GOLDEN_RATIO % 1)
    return [items[i] for i in sorted(order[:count])]


def agreement(matches: MatchesByPair, expected: MatchesByPair) -> float | None:
    """Fraction of all matches that both engines have, over the pairs that both matched; None without such pairs."""
    shared, ours, theirs = _count_shared(matches, expected)
    return _fraction(shared, ours + theirs - shared) if matches.keys() & expected.keys() else None


def recall(matches: MatchesByPair, expected: MatchesByPair) -> float | None:
    """Fraction of the expected matches that were found, over the pairs that both matched; None without such pairs."""
    shared, _, theirs = _count_shared(matches, expected)
    return _fraction(shared, theirs) if matches.keys() & expected.keys() else None


def _count_shared(matches: MatchesByPair, expected: MatchesByPair) -> tuple[int, int, int]:
    """Count the matches that both have, those of the first, and those of the second, in the pairs that both matched."""
    pairs = matches.keys() & expected.keys()
    shared = sum(len({*map(tuple, matches[pair].tolist())} & {*map(tuple, expected[pair].tolist())}) for pair in pairs)
    return shared, sum(len(matches[pair]) for pair in pairs), sum(len(expected[pair]) for pair in pairs)


def _fraction(part: int, total: int) -> float:
    return part / total if total else 1.0
