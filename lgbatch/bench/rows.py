"""One row of `lgbatch bench match`: an engine that takes its turns, and what they show."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from lgbatch.bench import machine
from lgbatch.bench.engines import Engine, Published, Scene
from lgbatch.bench.operations import at_full_depth, operations, padding, stops
from lgbatch.matching.lightglue import Trace
from lgbatch.types import IntArray, Pair

Item = TypeVar("Item")
Found = Mapping[Pair, IntArray]

_GOLDEN = (5**0.5 - 1) / 2


class Row:
    """An engine, what it found when it matched first, and the seconds of its turns."""

    def __init__(
        self, name: str, make: Callable[[], Engine], scene: Scene, *, fixed: bool = False, like: "Row | None" = None
    ) -> None:
        """Fixed: the engine runs at fixed depth; like: a row before this one, which has the same pairs to match.

        Nothing is opened yet.
        """
        self.name, self.fixed = name, fixed
        self._make, self._scene, self._like = make, scene, like
        self._timed = scene.pairs
        self.seconds: list[float] = []

    def begin(self, seconds: float) -> None:
        """Open the engine, let it match once, and choose the pairs of its turns.

        A turn of the published network takes about `seconds`; one of lgbatch three times that, to keep all workers
        busy; one at fixed depth half of that, as pairs are alike there, and matching all once would take minutes.
        """
        taken, self._memory_mb = machine.with_memory(lambda: self._first(seconds / 2))
        self.found, self._trace = self._engine.found(), self._engine.trace()
        if not self.fixed and not self._like:
            self._timed = self._sample(seconds if self._published else 3 * seconds, taken / len(self._timed))

    def _first(self, seconds: float) -> float:
        self._engine = self._make()
        warm_up = spread(self._timed, 2)
        each = self._clock(warm_up) / len(warm_up)
        if self._like:
            self._timed = self._like._timed
        elif self.fixed:
            self._timed = self._sample(seconds, each)
        return self._clock(self._timed)

    def _sample(self, seconds: float, each: float) -> list[Pair]:
        """As many pairs as fit, in fours: with fewer, some workers of an engine that makes batches have none."""
        fewest = 2 if self._published and self.fixed else 4
        return spread(self._scene.pairs, int(seconds / each) // 4 * 4 or fewest)

    @property
    def _published(self) -> bool:
        return isinstance(self._engine, Published)

    def turn(self) -> None:
        """Match by the clock."""
        self.seconds.append(self._clock(self._timed))

    def _clock(self, pairs: Sequence[Pair]) -> float:
        start = time.perf_counter()
        self._engine.match(pairs)
        return time.perf_counter() - start

    def rates(self) -> list[float]:
        """Pairs a second, of each turn."""
        return [self._worth() / seconds for seconds in self.seconds]

    def _worth(self) -> float:
        """How many average pairs a turn matches: a sample may be easier or harder than all pairs are."""
        pairs = self._scene.pairs
        if len(self._timed) == len(pairs):
            return len(pairs)
        if self._like:
            return self._like._worth()
        if self.fixed:
            part, whole = (self._operations(self._full_depth(of)) for of in (self._timed, pairs))
        else:
            part, whole = self._operations(self._engine.trace()), self._operations(self._trace)
        return len(pairs) * part / whole

    def _full_depth(self, pairs: Sequence[Pair]) -> Trace:
        counts, shape = self._scene.counts, self._scene.shape
        stems = [name for pair in pairs for name in pair]
        if self._engine.once_per_image:
            stems = list(dict.fromkeys(stems))
        return at_full_depth([(counts[a], counts[b]) for a, b in pairs], [counts[name] for name in stems], shape.layers)

    def _operations(self, trace: Trace | None) -> int:
        return operations(trace or [], self._scene.descriptor_dim, self._scene.shape, published=self._published)

    def result(self, adaptive: "Row | None", fixed: "Row | None", matrix_gflops: float | None) -> dict[str, Any]:
        """What the turns show, as plain values; `adaptive` and `fixed` are the rows of the published network."""
        seconds = float(np.median(self.seconds))
        expected = fixed if self.fixed else adaptive
        gflops = self._operations(self._engine.trace()) / seconds / 1e9 or None
        return {
            "name": self.name,
            "pairs_per_second": float(np.median(self.rates())),
            "pairs_per_second_by_turn": self.rates(),
            "timed_pairs": len(self._timed),
            "ratio_to_adaptive": self._ratio(adaptive),
            "ratio_to_fixed": self._ratio(fixed),
            "agreement": None if expected is None else agreement(self.found, expected.found),
            "recall": None if expected is None else recall(self.found, expected.found),
            "matched_pairs": len(self.found),
            "matches": sum(len(rows) for rows in self.found.values()),
            "gflops": gflops,
            "share_of_matrix_rate": gflops / matrix_gflops if gflops and matrix_gflops else None,
            "padding": None if self._trace is None else padding(self._trace),
            "stops": None if self._trace is None else stops(self._trace, self._scene.shape.layers),
            "memory_mb": self._memory_mb,
        }

    def _ratio(self, other: "Row | None") -> float | None:
        if other is None:
            return None
        return float(np.median(np.array(self.rates()) / np.array(other.rates())))


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """Up to `count` items in their order, from all over; what fewer would be is part of what more are."""
    order = sorted(range(len(items)), key=lambda i: i * _GOLDEN % 1)
    return [items[i] for i in sorted(order[:count])]


def agreement(found: Found, expected: Found) -> float | None:
    """Share of all matches that both have, in the pairs that both have matched; None without such pairs."""
    shared, ours, theirs = _shared(found, expected)
    return _share(shared, ours + theirs - shared) if found.keys() & expected.keys() else None


def recall(found: Found, expected: Found) -> float | None:
    """Share of the expected matches that were found, in the pairs that both have matched; None without such pairs."""
    shared, _, theirs = _shared(found, expected)
    return _share(shared, theirs) if found.keys() & expected.keys() else None


def _shared(found: Found, expected: Found) -> tuple[int, int, int]:
    """How many matches both have, and each, in the pairs that both have matched."""
    pairs = found.keys() & expected.keys()
    same = sum(len({*map(tuple, found[pair].tolist())} & {*map(tuple, expected[pair].tolist())}) for pair in pairs)
    return same, sum(len(found[pair]) for pair in pairs), sum(len(expected[pair]) for pair in pairs)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0
