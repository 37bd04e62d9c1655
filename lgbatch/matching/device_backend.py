"""Points that stay on a device between the stages: nothing but decisions and matches comes to the host.

A stage leaves what it makes of a batch where it is, a Block. When points or pairs leave a batch, what goes on is
gathered there into another, by the stage `pack`, which is told the places by the host. A batch that has not changed
is taken as it is. All of this is ONNX Runtime's I/O binding, which is the same for a GPU and for the CPU; a run ends
when the device has done it, so what one session leaves is ready for the next.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from lgbatch.matching.backend import PARTS, Bools
from lgbatch.runtime.models import Stages
from lgbatch.runtime.registry import INTERFACE
from lgbatch.runtime.session import OnnxSession, Tensor
from lgbatch.types import LongArray

STAY = frozenset([*PARTS, "y0", "y1"])
"""Outputs that are left on the device."""


@dataclass(frozen=True)
class DeviceBatch:
    """Points of one side of a batch, padded; padding holds numbers that nobody reads, but finite ones."""

    x: Tensor
    """(B, L, W) float32."""
    cosines: Tensor
    sines: Tensor
    """(B, L, D / 2) float32."""


@dataclass(frozen=True)
class DeviceView:
    """Points of an image, somewhere in a block. A points.Points."""

    block: DeviceBatch
    rows: LongArray
    """(N,): their places in the first two axes of the block, taken as one."""

    def __len__(self) -> int:
        """As Points."""
        return len(self.rows)

    def keep(self, mask: Bools) -> "DeviceView":
        """As Points. Nothing moves."""
        return DeviceView(self.block, self.rows[mask])


class DeviceBackend:
    """Where the stages run: a points.Place[Held]."""

    def __init__(self, stages: Stages) -> None:
        """Of stages that are all run by ONNX Runtime."""
        self._sessions = {
            name: model.session for name, model in stages.models.items() if isinstance(model.session, OnnxSession)
        }

    def run(self, stage: str, feed: Mapping[str, Any]) -> Sequence[Any]:
        """As Place."""
        return self._sessions[stage].run_bound(feed, STAY)

    def padded(self, items: Sequence[DeviceView], parts: Sequence[str]) -> dict[str, Any]:
        """As Place. One run of `pack` for each block that neighbours come from."""
        if _unchanged(items):
            return {part: getattr(items[0].block, part) for part in parts}
        session, length, done = self._sessions["pack"], max(map(len, items)), 0
        outputs = [output for part, output in zip(PARTS, INTERFACE["pack"][1], strict=True) if part in parts]
        widths = [getattr(items[0].block, part).shape()[2] for part in parts]
        packed = [session.empty((len(items), length, width)) for width in widths]
        for _, neighbours in groupby(items, key=lambda item: id(item.block)):
            group = list(neighbours)
            rows = np.zeros((len(group), length), dtype=np.int64)  # padding is the block's first point
            for row, item in zip(rows, group, strict=True):
                row[: len(item)] = item.rows
            feed = {part: getattr(group[0].block, part) for part in PARTS}
            session.run_into(feed | {"rows": rows}, dict(zip(outputs, packed, strict=True)), done, len(group))
            done += len(group)
        return dict(zip(parts, packed, strict=True))

    def items(self, lengths: Sequence[int], x: Tensor, cosines: Tensor, sines: Tensor) -> list[DeviceView]:
        """As Place."""
        block, length = DeviceBatch(x, cosines, sines), x.shape()[1]
        return [DeviceView(block, np.arange(row * length, row * length + n)) for row, n in enumerate(lengths)]


def _unchanged(items: Sequence[DeviceView]) -> bool:
    """Whether these are all items of one block, in order, with all the points that they had when it was made."""
    block = items[0].block
    count, length, _ = block.x.shape()
    return (
        len(items) == count
        and max(map(len, items)) == length
        and all(item.block is block and _begins(item, row * length) for row, item in enumerate(items))
    )


def _begins(item: DeviceView, start: int) -> bool:
    """Whether its points are neighbours from a place on."""
    return bool(item.rows[0] == start and item.rows[-1] == start + len(item) - 1)
