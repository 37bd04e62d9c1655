"""LightGlue in stages: padded batches of pairs, with early exit and point pruning for each pair.

After each layer the host reads the confidence and the matchability of every point. Early exit: once enough points of a
pair are confident, the head of that layer computes its matches. Point pruning: a confident point that is unlikely to
have a match leaves. The remaining points and pairs form new batches for the next layer. Rules and thresholds are those
of the reference (Lindenberger et al., ICCV 2023, section 3.3), which runs one pair at a time: a pair has the same
matches in a batch.

The stage `stem` depends on one image only. Callers encode each image once and reuse the result for all its pairs.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lgbatch.config import Settings
from lgbatch.errors import ItemError
from lgbatch.matching.backend import POINT_TENSORS, Backend, BoolArray, HostBackend, Points
from lgbatch.matching.device_backend import DeviceBackend
from lgbatch.matching.schedule import pack
from lgbatch.photos.coordinates import angles_to_upright, to_upright, upright_size
from lgbatch.runtime.models import open_stages
from lgbatch.runtime.session import Array
from lgbatch.types import Features, FloatArray, IntArray, Matches

GIVE_UP_LAYER = 1
"""Index of the layer after which settings.give_up is checked. After layer 0, even overlapping pairs have few matches
with a high score."""
GIVE_UP_SCORE = np.array(0.3, dtype=np.float32)
"""Least score of a match that counts in that check."""
StageTrace = list[tuple[str, tuple[Array, ...]]]
"""Stages in the order in which they ran, with the lengths (B,) of their batches: one array for `stem`, which encodes an
image, and two for the other stages, one per side of the pairs."""


@dataclass
class _ImageState:
    """One image of a pair between two layers."""

    points: Points
    """The points that pruning has left."""
    rows: IntArray
    """(N,) int32, their rows among the keypoints of the image."""
    layers: IntArray | None = None
    """Layers that each keypoint of the image went through, set by `prune` for the points that leave. None if they are
    not recorded."""

    def prune(self, keep: BoolArray, layers: int) -> None:
        """Drop the points whose entry in `keep` (N,) is false, after so many layers."""
        if self.layers is not None:
            self.layers[self.rows[~keep]] = layers
        self.points, self.rows = self.points.keep(keep), self.rows[keep]


@dataclass
class _PairState:
    """A pair between two layers."""

    images: tuple[_ImageState, ...]
    """Both images. Empty once the matches are computed, which frees the tensors."""
    keypoints: int
    """Keypoints of both images before pruning."""
    matches: Matches = field(default_factory=lambda: no_matches())
    stop: int = 0
    """Layers that the pair went through."""

    @property
    def lengths(self) -> tuple[int, int]:
        """Remaining points of each image."""
        return len(self.images[0].points), len(self.images[1].points)


@dataclass(frozen=True)
class MatchTrace:
    """The matches of a pair, and the layers that the pair and each of its keypoints went through."""

    matches: Matches
    stop: int
    """Layers that the pair went through. Smaller than `depth` after an early exit."""
    depth: int
    """Layers of the network."""
    layers0: IntArray
    layers1: IntArray
    """(N,) int32, layers that each keypoint of the first and second image went through. Smaller than `stop` if the
    keypoint was pruned."""


class Matcher:
    """LightGlue for the features of one extractor, on one device.

    `encode` runs the stage `stem` on an image, `match` the other stages on pairs of encoded images. Encoded images are
    valid only for the matcher that returned them. Several threads may call a matcher at once.
    """

    def __init__(self, models: Path, settings: Settings, *, device_id: int = 0) -> None:
        """Open the stages for settings.extractor. `device_id` is the index of the GPU, if one is used.

        Raises ModelError as models.open_stages.
        """
        self.stages = open_stages(models, settings, device_id=device_id)
        self.shape = self.stages.shape
        self.stage_trace: StageTrace | None = None
        """The stages that ran are appended to this list, unless it is None."""
        self._backend: Backend[Any] = (
            HostBackend(self.stages) if self.stages.device == "cpu" else DeviceBackend(self.stages)
        )
        self._extractor = settings.extractor
        self._depth_confidence = np.float32(settings.depth_confidence)
        self._width_confidence = settings.width_confidence
        self._filter_threshold = np.array(settings.filter_threshold, dtype=np.float32)
        self._give_up = settings.give_up

    def encode(self, features: Features) -> Points:
        """Run the stage `stem` on the features of an image, which must have at least one keypoint.

        Raises ItemError as keypoint_input.
        """
        count = len(features.keypoints)
        outputs = self._run_stage(
            "stem",
            {
                "keypoints": keypoint_input(features, self._extractor)[None],
                "descriptors": features.descriptors[None],
                "size": np.array([size_input(features)], dtype=np.float32),
                "lengths": np.array([count]),
            },
        )
        encoded: Points = self._backend.split([count], *outputs)[0]
        return encoded

    def match(self, pairs: Sequence[tuple[Points, Points]], tokens: int) -> list[Matches]:
        """Match pairs of encoded images, in batches of up to `tokens` points including padding."""
        return [matches for matches, _ in self.match_and_stop(pairs, tokens)]

    def match_and_stop(self, pairs: Sequence[tuple[Points, Points]], tokens: int) -> list[tuple[Matches, int]]:
        """Match as `match`. Returns for each pair its matches and the number of layers that it went through."""
        states = [_pair_state(first, second) for first, second in self._joined(pairs)]
        self._run_layers(states, tokens)
        return [(state.matches, state.stop) for state in states]

    def match_with_trace(self, first: Points, second: Points) -> MatchTrace:
        """Match one pair, and record after which layer each keypoint was pruned."""
        pair, depth = _pair_state(first, second), self.shape.layers
        layers = [np.full(len(image.points), depth, dtype=np.int32) for image in pair.images]
        for image, image_layers in zip(pair.images, layers, strict=True):
            image.layers = image_layers
        self._run_layers([pair], pair.keypoints)
        layers0, layers1 = (np.minimum(image_layers, pair.stop) for image_layers in layers)
        return MatchTrace(pair.matches, pair.stop, depth, layers0, layers1)

    def _joined(self, pairs: Sequence[tuple[Points, Points]]) -> Sequence[tuple[Points, Points]]:
        """Return the pairs with all their images in one batch of the backend, if most images are in several pairs."""
        images = {id(image): image for pair in pairs for image in pair}
        if len(images) >= len(pairs):
            return pairs
        joined = dict(zip(images, self._backend.join([*images.values()]), strict=True))
        return [(joined[id(first)], joined[id(second)]) for first, second in pairs]

    def _run_layers(self, pairs: Sequence[_PairState], tokens: int) -> None:
        """Run each pair through the layers until it exits, and set its matches."""
        for layer in range(self.shape.layers):
            exiting = []
            for batch in self._batches(pairs, tokens):
                exiting += self._run_layer(batch, layer)
            for batch in self._batches(exiting, tokens):
                self._set_matches(batch, layer)
            exited = {id(pair) for pair in exiting}
            pairs = [pair for pair in pairs if id(pair) not in exited and min(pair.lengths) > 0]
            if self._give_up and layer == GIVE_UP_LAYER:
                pairs = [pair for batch in self._batches(pairs, tokens) for pair in self._not_given_up(batch)]

    def _batches(self, pairs: Sequence[_PairState], tokens: int) -> list[list[_PairState]]:
        """Divide pairs into batches of up to `tokens` points including padding."""
        groups = pack([pair.lengths for pair in pairs], tokens, self._backend.padding)
        return [[pairs[i] for i in group] for group in groups]

    def _run_layer(self, batch: Sequence[_PairState], layer: int) -> list[_PairState]:
        """Run a batch through a layer and prune its points. Returns the pairs that exit after this layer."""
        feed = self._pad(batch, POINT_TENSORS)
        y0, y1, *decisions = self._run_stage(f"layer{layer}", feed)
        self._set_points(batch, feed, (y0, y1))
        exiting = []
        for row, pair in enumerate(batch):
            pair.stop = layer + 1
            pair_decisions = [output[row] for output in decisions]
            if layer == self.shape.layers - 1 or self._exits_early(pair, pair_decisions, layer):
                exiting.append(pair)
            elif self._width_confidence >= 0:
                self._prune_points(pair, pair_decisions, layer)
        return exiting

    def _set_points(self, batch: Sequence[_PairState], feed: Mapping[str, Any], outputs: Iterable[Any]) -> None:
        """Replace the points of a batch by the embeddings that a layer returned."""
        for side, x in enumerate(outputs):
            lengths = [pair.lengths[side] for pair in batch]
            images = self._backend.split(lengths, x, feed[f"cosines{side}"], feed[f"sines{side}"])
            for pair, points in zip(batch, images, strict=True):
                pair.images[side].points = points

    def _run_stage(self, stage: str, feed: Mapping[str, Any]) -> Sequence[Any]:
        if self.stage_trace is not None:
            lengths = tuple(feed[name] for name in sorted(feed) if name.startswith("lengths"))
            self.stage_trace.append((stage, lengths))
        return self._backend.run(stage, feed)

    def _exits_early(self, pair: _PairState, decisions: Sequence[FloatArray], layer: int) -> bool:
        """Whether the fraction of confident keypoints, pruned ones included, exceeds settings.depth_confidence."""
        if self._depth_confidence < 0:
            return False
        m, n = pair.lengths
        threshold = confidence_threshold(layer, self.shape.layers)
        unconfident = np.count_nonzero(decisions[0][:m] < threshold) + np.count_nonzero(decisions[2][:n] < threshold)
        confident = np.float32(1) - np.float32(unconfident) / np.float32(pair.keypoints)
        return bool(confident > self._depth_confidence)

    def _prune_points(self, pair: _PairState, decisions: Sequence[FloatArray], layer: int) -> None:
        """Drop points of low matchability. With early exit enabled, only confident points may be dropped."""
        for image, confidence, matchability in zip(pair.images, decisions[::2], decisions[1::2], strict=True):
            count = len(image.points)
            keep = matchability[:count] > np.float32(1 - self._width_confidence)
            if self._depth_confidence >= 0:
                keep |= confidence[:count] <= confidence_threshold(layer, self.shape.layers)
            if not keep.all():
                image.prune(keep, layer + 1)

    def _not_given_up(self, batch: Sequence[_PairState]) -> list[_PairState]:
        """The pairs with at least settings.give_up matches of GIVE_UP_SCORE. The other pairs stay without matches."""
        matches0, _ = self._run_head(batch, GIVE_UP_LAYER, GIVE_UP_SCORE)
        return [pair for pair, row in zip(batch, matches0, strict=True) if np.count_nonzero(row >= 0) >= self._give_up]

    def _run_head(self, batch: Sequence[_PairState], layer: int, threshold: Array) -> Sequence[Array]:
        """Run the head of a layer. Returns matches0 (B, M), -1 for no match, and scores (B, M)."""
        return self._run_stage(f"head{layer}", self._pad(batch, ("x",)) | {"threshold": threshold})

    def _set_matches(self, batch: Sequence[_PairState], layer: int) -> None:
        """Compute the matches of pairs that exit after a layer, and free their tensors."""
        matches0, scores = self._run_head(batch, layer, self._filter_threshold)
        for pair, second_rows, row_scores in zip(batch, matches0, scores, strict=True):
            matched = np.flatnonzero(second_rows >= 0)
            first, second = pair.images
            indices = np.stack([first.rows[matched], second.rows[second_rows[matched]]], axis=1)
            pair.matches, pair.images = Matches(indices, row_scores[matched]), ()

    def _pad(self, batch: Sequence[_PairState], tensors: Sequence[str]) -> dict[str, Any]:
        """Stage inputs for a batch: the named tensors of both sides, padded, and their lengths (B,) int64."""
        feed: dict[str, Any] = {}
        for side in (0, 1):
            images = [pair.images[side].points for pair in batch]
            feed[f"lengths{side}"] = np.array([len(points) for points in images], dtype=np.int64)
            feed |= {f"{name}{side}": value for name, value in self._backend.pad(images, tensors).items()}
        return feed


def keypoint_input(features: Features, extractor: str) -> FloatArray:
    """The input `keypoints` of an extractor's LightGlue: (N, 2) positions; for SIFT (N, 4) with scale and orientation.

    They are in the upright photo, as the network was trained: its positions count, not only their differences.

    Raises ItemError if SIFT features have no scales or orientations.
    """
    keypoints = to_upright(features.keypoints, features.image_size, features.orientation)
    if extractor != "sift":
        return keypoints
    if features.scales is None or features.oris is None:
        raise ItemError("SIFT features without scales and orientations: extract the photo again with --extractor sift")
    return np.column_stack([keypoints, features.scales, angles_to_upright(features.oris, features.orientation)])


def size_input(features: Features) -> tuple[int, int]:
    """The input `size` of LightGlue: (width, height) of the upright photo."""
    return upright_size(features.image_size, features.orientation)


def confidence_threshold(layer: int, layers: int) -> np.float32:
    """Least confidence of a confident point after a layer (from 0) of `layers`: it falls from 0.9 towards 0.8."""
    return np.float32(0.8 + 0.1 * np.exp(-4.0 * layer / layers))


def no_matches() -> Matches:
    """Matches (0, 2) of a pair that has none."""
    return Matches(np.zeros((0, 2), dtype=np.int32), np.zeros(0, dtype=np.float32))


def _pair_state(first: Points, second: Points) -> _PairState:
    images = tuple(_ImageState(points, np.arange(len(points), dtype=np.int32)) for points in (first, second))
    return _PairState(images, len(first) + len(second))
