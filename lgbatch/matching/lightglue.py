"""LightGlue in stages: padded batches of pairs, with adaptive depth and width for each pair by itself.

After each layer the host looks at every pair: is it done (enough points are sure of their match), and which points
can leave (they are sure that they have none)? Pairs that are done go to that layer's head; what is left is packed
again and goes on. The rules and thresholds are the reference's (Lindenberger et al., ICCV 2023, section 3.3), so
the matches are those it finds for one pair at a time.

What depends on one image alone, its Stem, is computed once per image by the caller's grace, not once per pair.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lgbatch.config import Settings
from lgbatch.errors import ItemError
from lgbatch.matching.backend import PARTS, Backend, Bools, HostBackend, Points
from lgbatch.matching.device_backend import DeviceBackend
from lgbatch.matching.schedule import pack
from lgbatch.runtime.models import open_stages
from lgbatch.runtime.session import Array
from lgbatch.types import Features, FloatArray, IntArray, Matches

GIVE_UP_LAYER = 1
"""After which pairs are given up on; before it, even pairs that overlap have few sure matches."""
SURE = np.array(0.3, dtype=np.float32)
"""Least score there of a match that counts."""
Trace = list[tuple[str, tuple[Array, ...]]]
"""Which stages ran, in order, and the lengths (B,) of their batches: of both sides, or for the stem of the image."""


@dataclass
class _Side:
    """One image of a pair on its way: the points that are still in, and which ones of the image they are."""

    points: Points
    index: IntArray
    layers: IntArray | None = None
    """Where it is asked for: how many layers each point of the image went through before it left, or all."""

    def keep(self, mask: Bools, layers: int) -> None:
        if self.layers is not None:
            self.layers[self.index[~mask]] = layers
        self.points, self.index = self.points.keep(mask), self.index[mask]


@dataclass
class _Pair:
    """A pair on its way."""

    sides: tuple[_Side, ...]
    """Two; none when it is done, so that its points leave the memory."""
    points: int
    """Of both images, before any left."""
    matches: Matches = field(default_factory=lambda: no_matches())
    stop: int = 0
    """Layers that it went through."""

    @property
    def lengths(self) -> tuple[int, int]:
        return len(self.sides[0].points), len(self.sides[1].points)


@dataclass(frozen=True)
class MatchTrace:
    """A pair's matches, and what happened on the way."""

    matches: Matches
    stop: int
    """Layers that the pair went through."""
    depth: int
    """Layers that there are."""
    layers0: IntArray
    layers1: IntArray
    """(N,) int32: layers that each point went through; fewer than `stop` where it left, as it had no match."""


class Matcher:
    """Stems of image pairs in, matches out: a stem is all points of an image, made ready for the layers.

    Safe to be called from several threads at once; stems are for the matcher that made them.
    """

    def __init__(self, models: Path, settings: Settings, *, number: int = 0) -> None:
        """Open the stages of an extractor's LightGlue, on the GPU of that number if it is one.

        Raises ModelError as models.open_stages.
        """
        self.stages = open_stages(models, settings, number=number)
        self._place: Backend[Any] = (
            HostBackend(self.stages) if self.stages.device == "cpu" else DeviceBackend(self.stages)
        )
        self._extractor = settings.extractor
        self.shape = self.stages.shape
        self._depth = np.float32(settings.depth_confidence)
        self._width = settings.width_confidence
        self._threshold = np.array(settings.filter_threshold, dtype=np.float32)
        self._least = settings.give_up
        self.trace: Trace | None = None  # where there is a list, it is added to

    def encode(self, features: Features) -> Points:
        """What depends on one image alone; it has at least one keypoint. Raises ItemError as `positions`."""
        count = len(features.keypoints)
        outputs = self._run(
            "stem",
            {
                "keypoints": positions(features, self._extractor)[None],
                "descriptors": features.descriptors[None],
                "size": np.array([features.image_size], dtype=np.float32),
                "lengths": np.array([count]),
            },
        )
        stem: Points = self._place.items([count], *outputs)[0]
        return stem

    def match(self, pairs: Sequence[tuple[Points, Points]], tokens: int) -> list[Matches]:
        """Match pairs, in batches of up to `tokens` padded points."""
        return [matches for matches, _ in self.match_and_stop(pairs, tokens)]

    def match_and_stop(self, pairs: Sequence[tuple[Points, Points]], tokens: int) -> list[tuple[Matches, int]]:
        """As `match`, and after how many layers each pair was done."""
        every = [_Pair((_side(first), _side(second)), len(first) + len(second)) for first, second in pairs]
        self._send(every, tokens)
        return [(pair.matches, pair.stop) for pair in every]

    def follow(self, first: Points, second: Points) -> MatchTrace:
        """Match one pair, and tell where on its way each point left."""
        sides, depth = (_side(first), _side(second)), self.shape.layers
        layers = [np.full(len(side.points), depth, dtype=np.int32) for side in sides]
        for side, of_side in zip(sides, layers, strict=True):
            side.layers = of_side
        pair = _Pair(sides, len(first) + len(second))
        self._send([pair], pair.points)
        first_left, second_left = (np.minimum(of_side, pair.stop) for of_side in layers)
        return MatchTrace(pair.matches, pair.stop, depth, first_left, second_left)

    def _send(self, active: Sequence[_Pair], tokens: int) -> None:
        """Through the layers, each as far as it needs."""
        for layer in range(self.shape.layers):
            done = []
            for batch in _batches(active, tokens):
                done += self._advance(batch, layer)
            for batch in _batches(done, tokens):
                self._finish(batch, layer)
            finished = {id(pair) for pair in done}
            active = [pair for pair in active if id(pair) not in finished and min(pair.lengths) > 0]
            if self._least and layer == GIVE_UP_LAYER:
                active = [pair for batch in _batches(active, tokens) for pair in self._hopeful(batch)]

    def _advance(self, batch: Sequence[_Pair], layer: int) -> list[_Pair]:
        """Send a batch through a layer, drop points, and return the pairs that are done."""
        feed = self._feed(batch, PARTS)
        outputs = self._run(f"layer{layer}", feed)
        for number, x in enumerate(outputs[:2]):
            positions = feed[f"cosines{number}"], feed[f"sines{number}"]
            items = self._place.items([pair.lengths[number] for pair in batch], x, *positions)
            for pair, points in zip(batch, items, strict=True):
                pair.sides[number].points = points
        done = []
        for row, pair in enumerate(batch):
            pair.stop = layer + 1
            if layer == self.shape.layers - 1:
                done.append(pair)
                continue
            decisions = [output[row] for output in outputs[2:]]
            if self._is_done(pair, decisions, layer):
                done.append(pair)
            elif self._width >= 0:
                self._prune(pair, decisions, layer)
        return done

    def _run(self, stage: str, feed: Mapping[str, Any]) -> Sequence[Any]:
        if self.trace is not None:
            self.trace.append((stage, tuple(feed[name] for name in sorted(feed) if name.startswith("lengths"))))
        return self._place.run(stage, feed)

    def _is_done(self, pair: _Pair, decisions: Sequence[FloatArray], layer: int) -> bool:
        if self._depth < 0:
            return False
        m, n = pair.lengths
        limit = confidence_threshold(layer, self.shape.layers)
        unsure = np.count_nonzero(decisions[0][:m] < limit) + np.count_nonzero(decisions[2][:n] < limit)
        return bool(np.float32(1) - np.float32(unsure) / np.float32(pair.points) > self._depth)

    def _prune(self, pair: _Pair, decisions: Sequence[FloatArray], layer: int) -> None:
        for side, confidence, matchability in zip(pair.sides, decisions[::2], decisions[1::2], strict=True):
            count = len(side.points)
            keep = matchability[:count] > np.float32(1 - self._width)
            if self._depth >= 0:  # a point that is not sure yet is never dropped
                keep |= confidence[:count] <= confidence_threshold(layer, self.shape.layers)
            if not keep.all():
                side.keep(keep, layer + 1)

    def _hopeful(self, batch: Sequence[_Pair]) -> list[_Pair]:
        """Those that have enough matches already; the others stay without any."""
        matches0, _ = self._assign(batch, GIVE_UP_LAYER, SURE)
        return [pair for pair, row in zip(batch, matches0, strict=True) if np.count_nonzero(row >= 0) >= self._least]

    def _assign(self, batch: Sequence[_Pair], layer: int, threshold: Array) -> Sequence[Array]:
        return self._run(f"head{layer}", self._feed(batch, ("x",)) | {"threshold": threshold})

    def _finish(self, batch: Sequence[_Pair], layer: int) -> None:
        matches0, scores = self._assign(batch, layer, self._threshold)
        for pair, row, score in zip(batch, matches0, scores, strict=True):
            found = np.flatnonzero(row >= 0)
            first, second = pair.sides
            indices = np.stack([first.index[found], second.index[row[found]]], axis=1)
            pair.matches, pair.sides = Matches(indices, score[found]), ()

    def _feed(self, batch: Sequence[_Pair], parts: Sequence[str]) -> dict[str, Any]:
        """Each side of a batch, padded."""
        feed: dict[str, Any] = {}
        for number in (0, 1):
            points = [pair.sides[number].points for pair in batch]
            feed[f"lengths{number}"] = np.array([len(of_side) for of_side in points], dtype=np.int64)
            feed |= {f"{part}{number}": value for part, value in self._place.padded(points, parts).items()}
        return feed


def positions(features: Features, extractor: str) -> FloatArray:
    """What an extractor's LightGlue takes as keypoints: (N, 2), or for SIFT (N, 4) with scales and orientations.

    Raises ItemError when features that are to be SIFT's have none.
    """
    if extractor != "sift":
        return features.keypoints
    if features.scales is None or features.oris is None:
        raise ItemError("no scales and orientations, as SIFT has: extract it again with --extractor sift")
    return np.column_stack([features.keypoints, features.scales, features.oris])


def confidence_threshold(layer: int, layers: int) -> np.float32:
    """How sure a point must be of its match after a layer (from 0) of `layers`: it falls from 0.9 towards 0.8."""
    return np.float32(0.8 + 0.1 * np.exp(-4.0 * layer / layers))


def no_matches() -> Matches:
    """The matches of a pair that has none."""
    return Matches(np.zeros((0, 2), dtype=np.int32), np.zeros(0, dtype=np.float32))


def _side(stem: Points) -> _Side:
    return _Side(stem, np.arange(len(stem), dtype=np.int32))


def _batches(pairs: Sequence[_Pair], tokens: int) -> list[list[_Pair]]:
    return [[pairs[i] for i in group] for group in pack([pair.lengths for pair in pairs], tokens)]
