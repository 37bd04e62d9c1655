"""Points of images on their way through the stages of LightGlue, and where they are meanwhile.

The matcher decides; a Place holds the numbers that it never looks at, and runs the stages on them. Here they are
arrays of the host; on_device.py leaves them on a GPU.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from lgbatch.runtime.models import Stages
from lgbatch.types import FloatArray

Bools = NDArray[np.bool_]
PARTS = ("x", "cosines", "sines")
"""What there is of a point, as the stages call it: W numbers, and the two of its rotary position (D / 2 each, D the
width of a head)."""


class Points(Protocol):
    """Some points of an image, ready for a layer."""

    def __len__(self) -> int:
        """How many."""

    def keep(self, mask: Bools) -> Self:
        """Those where the mask (N,) is true."""


P = TypeVar("P")


class Backend(Protocol[P]):
    """Where points of the kind P are, and the stages run. Values of PARTS in a feed are its own; all else is arrays."""

    def run(self, stage: str, feed: Mapping[str, Any]) -> Sequence[Any]:
        """Outputs in the order of models.INTERFACE; raises RuntimeError when the run fails."""

    def padded(self, items: Sequence[P], parts: Sequence[str]) -> dict[str, Any]:
        """Those of PARTS, by name, of a batch of items as stages take them: (B, L, C)."""

    def items(self, lengths: Sequence[int], x: Any, cosines: Any, sines: Any) -> list[P]:
        """The first points, as many as `lengths` says, of each item of a batch (B, L, C)."""


@dataclass(frozen=True)
class EncodedImage:
    """Points of an image, in arrays."""

    x: FloatArray
    """(N, W) float32."""
    cosines: FloatArray
    sines: FloatArray
    """(N, D / 2) float32."""

    def __len__(self) -> int:
        """As Points."""
        return len(self.x)

    def keep(self, mask: Bools) -> "EncodedImage":
        """As Points."""
        return EncodedImage(self.x[mask], self.cosines[mask], self.sines[mask])


class HostBackend:
    """Arrays in, arrays out: a Place[Stem]."""

    def __init__(self, stages: Stages) -> None:
        self._stages = stages

    def run(self, stage: str, feed: Mapping[str, Any]) -> Sequence[Any]:
        """As Place."""
        return self._stages.run(stage, feed)

    def padded(self, items: Sequence[EncodedImage], parts: Sequence[str]) -> dict[str, Any]:
        """As Place."""
        return {part: _padded([getattr(item, part) for item in items]) for part in parts}

    def items(
        self, lengths: Sequence[int], x: FloatArray, cosines: FloatArray, sines: FloatArray
    ) -> list[EncodedImage]:
        """As Place."""
        return [EncodedImage(x[row, :n], cosines[row, :n], sines[row, :n]) for row, n in enumerate(lengths)]


def _padded(values: Sequence[FloatArray]) -> FloatArray:
    """Rows (N, C) of each item as one array (B, L, C). A single item needs no copy."""
    if len(values) == 1:
        return values[0][None]
    padded = np.zeros((len(values), max(map(len, values)), values[0].shape[1]), dtype=np.float32)
    for row, value in enumerate(values):
        padded[row, : len(value)] = value
    return padded
