"""Small patches from a pyramid of feature maps, as if its levels had been upsampled and concatenated.

ALIKED samples a dense map (B, C, H, W) of 720 thousand pixels and 128 channels, but its descriptors read only a
fraction of it, so the map is never computed. A level that is upsampled with aligned corners has, at full-size row y,
the value of its own row y (h - 1) / (H - 1), interpolated linearly between two rows. A patch of up to three pixels a
side therefore depends on at most 3 x 3 pixels ("nodes") of a level of half the size or less. These are read, and a
small matrix per patch interpolates its pixels. This is exact up to rounding.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NODES = 3
"""Nodes per axis that a patch is interpolated from."""


@dataclass(frozen=True)
class Level:
    """One feature map of the pyramid, channels last."""

    pixels: Tensor
    """(B, h * w, C), in raster order."""
    size: tuple[int, int]
    """(h, w)."""


class PatchReader(nn.Module):
    """Reads patches of `side` x `side` pixels, with a side of 2 or 3.

    The first level has the full size. It is read before its last layer, selu(x @ first), which is then applied to the
    pixels of the patches only.
    """

    def __init__(self, side: int, first: Tensor) -> None:
        super().__init__()
        self.side, self.first = side, nn.Parameter(first)
        # Per axis there are weights (side, NODES), flattened. These matrices expand them to (side, side, NODES, NODES).
        identity = torch.eye(side * NODES).reshape(-1, side, NODES)
        spread = identity[:, :, None, :, None].expand(-1, -1, side, -1, NODES)
        self.rows = nn.Parameter(spread.flatten(1).contiguous())
        self.columns = nn.Parameter(spread.permute(0, 2, 1, 4, 3).flatten(1).contiguous())
        self.pixel = nn.Parameter(torch.arange(side).repeat_interleave(NODES).float())
        self.node = nn.Parameter(torch.arange(NODES).repeat(side).float())

    def forward(self, levels: Sequence[Level], x: Tensor, y: Tensor) -> Tensor:
        """Read patches with top-left pixels x, y (B, N) int64: (B, N, side * side, C), in raster order.

        C is the number of channels of all levels together. Pixels outside the map have arbitrary finite values.
        """
        full, *rest = levels
        first = [F.selu(_read(full, x, y, self.side) @ self.first)]
        return torch.cat(first + [self._upsampled(level, full.size, x, y) for level in rest], 3)

    def _upsampled(self, level: Level, full: tuple[int, int], x: Tensor, y: Tensor) -> Tensor:
        """Return the patches (B, N, side * side, C) of a smaller level, upsampled to the size `full`."""
        row, rows = self._weights(y, level.size[0], full[0])
        column, columns = self._weights(x, level.size[1], full[1])
        weights = (rows @ self.rows) * (columns @ self.columns)
        return weights.unflatten(2, (self.side**2, NODES**2)) @ _read(level, column, row, NODES)

    def _weights(self, first: Tensor, length: int, full: int) -> tuple[Tensor, Tensor]:
        """Return, for one axis, the first node of each patch (B, N) int64 and linear weights (B, N, side * NODES)."""
        scale = torch.tensor(length - 1) / torch.tensor(full - 1)
        position = first * scale
        node = position.floor()
        distance = (position - node)[..., None] + (self.pixel * scale - self.node)
        return node.long(), F.relu(1 - distance.abs())


def _read(level: Level, x: Tensor, y: Tensor, side: int) -> Tensor:
    """Read patches (B, N, side * side, C) of a level at its own size, with its edges replicated."""
    height, width = level.size
    step = torch.arange(side)
    rows = (y[..., None] + step).clamp(min=0).minimum(torch.tensor(height - 1))
    columns = (x[..., None] + step).clamp(min=0).minimum(torch.tensor(width - 1))
    index = (rows[..., None] * width + columns[..., None, :]).flatten(2)
    return level.pixels[torch.arange(index.shape[0])[:, None, None], index]
