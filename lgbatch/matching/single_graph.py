"""The single-graph matcher: all layers for all points, in padded batches. The engine of lgbatch is matcher.py."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lgbatch.matching.lightglue import positions
from lgbatch.runtime.models import Model
from lgbatch.types import Features, FloatArray, Matches


class SingleGraph:
    """Pairs of features in, matches out."""

    def __init__(self, model: Model, filter_threshold: float) -> None:
        """Take an opened model, and the least assignment probability of a match."""
        self.model = model
        self._threshold = np.array(filter_threshold, dtype=np.float32)

    def match(self, pairs: Sequence[tuple[Features, Features]]) -> list[Matches]:
        """Match a batch, padded to its longest; every image has at least one keypoint.

        Raises what the model's session raises when it does not fit into memory.
        """
        feed: dict[str, Any] = {"threshold": self._threshold}
        for side in (0, 1):
            images = [pair[side] for pair in pairs]
            feed |= {
                f"keypoints{side}": _padded([positions(image, self.model.family) for image in images]),
                f"descriptors{side}": _padded([image.descriptors for image in images]),
                f"size{side}": np.array([image.image_size for image in images], dtype=np.float32),
                f"lengths{side}": np.array([len(image.keypoints) for image in images]),
            }
        matches = []
        for row, scores in zip(*self.model.run(feed), strict=True):
            rows = np.flatnonzero(row >= 0)
            matches.append(Matches(np.stack([rows, row[rows]], axis=1).astype(np.int32), scores[rows]))
        return matches


def _padded(values: Sequence[FloatArray]) -> FloatArray:
    length = max(len(value) for value in values)
    return np.stack([np.pad(value, ((0, length - len(value)), (0, 0))) for value in values])
