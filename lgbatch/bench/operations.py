"""Floating-point operations, padding and early exits of LightGlue, from the trace of a run.

A multiply-add counts as two operations. Only matrix products are counted, which omits less than one percent. Padding is
not counted.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lgbatch.matching.lightglue import StageTrace
from lgbatch.runtime.registry import Shape

DEFAULT_SHAPE = Shape()
Counts = NDArray[np.int64]
"""Number of keypoints of each item of a batch (B,)."""


def operations(trace: StageTrace, descriptor_dim: int, shape: Shape = DEFAULT_SHAPE, *, published: bool = False) -> int:
    """Count the operations of a trace. `published` counts those of the reference implementation instead.

    It has an output projection after each attention, which the exported graphs fold into the next matrix, but computes
    the similarities of cross-attention once for both directions.
    """
    projection, similarities = (2, 6) if published else (0, 8)
    width = shape.width

    def stage_operations(stage: str, lengths: Sequence[Counts]) -> Counts:
        if stage == "stem":
            return 2 * descriptor_dim * width * lengths[0] + self_attention(lengths[0])
        m, n = lengths
        if stage.startswith("head"):
            return 2 * width * (width * (m + n) + m * n)
        cross = (16 + projection) * width**2 * (m + n) + similarities * width * m * n
        return cross if stage == "layer0" else cross + self_attention(m) + self_attention(n)

    def self_attention(n: Counts) -> Counts:
        return (18 + projection) * width**2 * n + 4 * width * n * n

    return sum(int(stage_operations(stage, lengths).sum()) for stage, lengths in trace)


def full_depth_trace(
    pairs: Sequence[tuple[int, int]], stems: Sequence[int], layers: int = DEFAULT_SHAPE.layers
) -> StageTrace:
    """Return the trace of pairs that go through all layers with all their points.

    `pairs` has the number of keypoints of both sides, `stems` those of each image that the stem encodes.
    """
    sides = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    stages = [f"layer{i}" for i in range(layers)] + [f"head{layers - 1}"]
    return [("stem", (np.array(stems, dtype=np.int64),)), *((stage, (sides[0], sides[1])) for stage in stages)]


def padding_fraction(trace: StageTrace) -> float:
    """Return the fraction of padding among the tokens in the batches of the layers."""
    layers = [lengths for stage, lengths in trace if stage.startswith("layer")]
    real = sum(int(side.sum()) for lengths in layers for side in lengths)
    padded = sum(len(side) * int(side.max()) for lengths in layers for side in lengths)
    return 1 - real / padded if padded else 0.0


def exits_per_layer(trace: StageTrace, layers: int = DEFAULT_SHAPE.layers) -> list[int]:
    """Return how many pairs exited after 1, 2, ... layers."""
    entering = [0] * (layers + 1)
    for stage, lengths in trace:
        if stage.startswith("layer"):
            entering[int(stage.removeprefix("layer"))] += len(lengths[0])
    return [entering[i] - entering[i + 1] for i in range(layers)]
