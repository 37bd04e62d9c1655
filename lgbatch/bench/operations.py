"""How many operations LightGlue takes, and what they are spent on, told from what went through its stages.

A multiplication and an addition are two operations. Only the matrix products are counted, which leaves out less than
a hundredth; padding is not counted.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lgbatch.matching.lightglue import Trace
from lgbatch.runtime.registry import Shape

DEFAULT = Shape()
Counts = NDArray[np.int64]


def operations(trace: Trace, descriptor_dim: int, shape: Shape = DEFAULT, *, published: bool = False) -> int:
    """Operations of what a trace tells; `published` is the network as its authors run it.

    That one has a projection behind each attention, which the exported graphs fold into the next matrix, but it
    computes the similarities of cross-attention once for both directions.
    """
    projection, similarities = (2, 6) if published else (0, 8)
    width = shape.width

    def of_stage(stage: str, lengths: Sequence[Counts]) -> Counts:
        if stage == "stem":
            return 2 * descriptor_dim * width * lengths[0] + of_self(lengths[0])
        m, n = lengths
        if stage.startswith("head"):
            return 2 * width * (width * (m + n) + m * n)
        cross = (16 + projection) * width**2 * (m + n) + similarities * width * m * n
        return cross if stage == "layer0" else cross + of_self(m) + of_self(n)

    def of_self(n: Counts) -> Counts:
        return (18 + projection) * width**2 * n + 4 * width * n * n

    return sum(int(of_stage(stage, lengths).sum()) for stage, lengths in trace)


def at_full_depth(pairs: Sequence[tuple[int, int]], stems: Sequence[int], layers: int = DEFAULT.layers) -> Trace:
    """The trace of pairs, given the keypoints of their sides, that go through all layers with all their points."""
    sides = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    stages = [f"layer{i}" for i in range(layers)] + [f"head{layers - 1}"]
    return [("stem", (np.array(stems, dtype=np.int64),)), *((stage, (sides[0], sides[1])) for stage in stages)]


def padding(trace: Trace) -> float:
    """Share of the points in the layers' batches that were padding."""
    layers = [lengths for stage, lengths in trace if stage.startswith("layer")]
    real = sum(int(side.sum()) for lengths in layers for side in lengths)
    padded = sum(len(side) * int(side.max()) for lengths in layers for side in lengths)
    return 1 - real / padded if padded else 0.0


def stops(trace: Trace, layers: int = DEFAULT.layers) -> list[int]:
    """How many pairs were done after 1, 2, ... layers."""
    entering = [0] * (layers + 1)
    for stage, lengths in trace:
        if stage.startswith("layer"):
            entering[int(stage.removeprefix("layer"))] += len(lengths[0])
    return [entering[i] - entering[i + 1] for i in range(layers)]
