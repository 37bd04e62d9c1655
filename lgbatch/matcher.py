"""A padded batch of pairs in, matches out: LightGlue on ONNX Runtime."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lgbatch.models import Array, Model, open_model
from lgbatch.types import Features, FloatArray, Matches


@dataclass(frozen=True)
class PaddedSide:
    """The first, or the second, images of a batch of B pairs, padded to N rows. Padding may hold anything."""

    keypoints: FloatArray
    """(B, N, 2) float32, as in Features."""
    descriptors: FloatArray
    """(B, N, D) float32."""
    sizes: FloatArray
    """(B, 2) float32, (width, height)."""
    lengths: NDArray[np.int64]
    """(B,) int64: the valid rows of each item."""


def pad(features: Sequence[Features], length: int) -> PaddedSide:
    """Stack features of unequal counts, none above `length`, with zeros behind them."""
    lengths = np.array([len(f.keypoints) for f in features], dtype=np.int64)
    keypoints = np.zeros((len(features), length, 2), dtype=np.float32)
    descriptors = np.zeros((len(features), length, features[0].descriptors.shape[1]), dtype=np.float32)
    for row, f in enumerate(features):
        keypoints[row, : lengths[row]] = f.keypoints
        descriptors[row, : lengths[row]] = f.descriptors
    return PaddedSide(keypoints, descriptors, np.array([f.image_size for f in features], dtype=np.float32), lengths)


class Matcher:
    """LightGlue at fixed depth, all pairs of a batch at once."""

    def __init__(self, models: Path, extractor: str, *, threshold: float, device: str, threads: int) -> None:
        """Open the matcher of an extractor. Raises ModelError as models.open_model."""
        self.model: Model = open_model(models, extractor, "matcher", device=device, threads=threads)
        self._threshold = np.array(threshold, dtype=np.float32)

    def match(self, first: PaddedSide, second: PaddedSide) -> list[Matches]:
        """Match row b of `first` with row b of `second`; a row without keypoints has no matches."""
        feed: dict[str, Array] = {"threshold": self._threshold}
        for number, side in enumerate((first, second)):
            feed |= {
                f"keypoints{number}": side.keypoints,
                f"descriptors{number}": side.descriptors,
                f"size{number}": side.sizes,
                f"lengths{number}": side.lengths,
            }
        matches0, scores = self.model.run(feed)
        return [_matches(row, score) for row, score in zip(matches0, scores, strict=True)]


def _matches(matches0: NDArray[np.int64], scores: FloatArray) -> Matches:
    found = np.flatnonzero(matches0 >= 0)
    return Matches(np.stack([found, matches0[found]], axis=1).astype(np.int32), scores[found])
