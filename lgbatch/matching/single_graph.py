"""LightGlue as one ONNX graph at fixed depth: all layers for all points, in padded batches.

For runner.py and for comparison in `lgbatch bench`. The match stage runs lightglue.py.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lgbatch.matching.backend import pad_rows
from lgbatch.matching.lightglue import keypoint_input, size_input
from lgbatch.runtime.models import Model
from lgbatch.types import Features, Matches


class SingleGraph:
    """Matches batches of pairs of features with a single-graph model."""

    def __init__(self, model: Model, filter_threshold: float) -> None:
        """Use an opened model. `filter_threshold` is the least assignment probability of a match."""
        self.model = model
        self._filter_threshold = np.array(filter_threshold, dtype=np.float32)

    def match(self, pairs: Sequence[tuple[Features, Features]]) -> list[Matches]:
        """Match one batch, padded to its longest image. Every image must have at least one keypoint.

        Raises what the session raises, for instance if the batch does not fit into memory.
        """
        feed: dict[str, Any] = {"threshold": self._filter_threshold}
        for side in (0, 1):
            images = [pair[side] for pair in pairs]
            feed |= {
                f"keypoints{side}": pad_rows([keypoint_input(image, self.model.family) for image in images]),
                f"descriptors{side}": pad_rows([image.descriptors for image in images]),
                f"size{side}": np.array([size_input(image) for image in images], dtype=np.float32),
                f"lengths{side}": np.array([len(image.keypoints) for image in images]),
            }
        matches = []
        for matches0, scores in zip(*self.model.run(feed), strict=True):
            rows = np.flatnonzero(matches0 >= 0)
            matches.append(Matches(np.stack([rows, matches0[rows]], axis=1).astype(np.int32), scores[rows]))
        return matches
