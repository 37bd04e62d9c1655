"""Small blocks of pixels out of a pyramid of feature maps, as if its levels had been upsampled and concatenated.

The dense map (B, C, H, W) that ALIKED samples is never made: 720 thousand pixels of 128 channels, of which its
descriptors look at a fraction. A level that is upsampled with aligned corners has, at full-size row y, the value of
its own row y (h - 1) / (H - 1), interpolated linearly between two rows. A block of up to three pixels a side so
depends on at most 3 x 3 pixels ("nodes") of a level that is half the size or less: these are read, and a small matrix
for each block makes its pixels of them. That is exact up to rounding.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NODES = 3


@dataclass(frozen=True)
class Level:
    """One feature map, channels last."""

    pixels: Tensor
    """(B, h * w, C), in raster order."""
    size: tuple[int, int]
    """h and w."""


class Blocks(nn.Module):
    """Reads blocks of `side` x `side` pixels, 2 or 3 a side.

    The first level is full-size, and read before its last step, selu(x @ first): few pixels of it are needed.
    """

    def __init__(self, side: int, first: Tensor) -> None:
        super().__init__()
        self.side, self.first = side, nn.Parameter(first)
        # An axis has weights (side, NODES), flattened; these repeat them for all of (side, side, NODES, NODES).
        one = torch.eye(side * NODES).reshape(-1, side, NODES)
        spread = one[:, :, None, :, None].expand(-1, -1, side, -1, NODES)
        self.rows = nn.Parameter(spread.flatten(1).contiguous())
        self.columns = nn.Parameter(spread.permute(0, 2, 1, 4, 3).flatten(1).contiguous())
        self.pixel = nn.Parameter(torch.arange(side).repeat_interleave(NODES).float())
        self.node = nn.Parameter(torch.arange(NODES).repeat(side).float())

    def forward(self, levels: Sequence[Level], x: Tensor, y: Tensor) -> Tensor:
        """Blocks whose top-left pixels are x, y (B, N) int64: (B, N, side * side, C), in raster order.

        C is the channels of all levels together. Pixels outside of the map hold some finite value.
        """
        full, *rest = levels
        parts = [F.selu(_read(full, x, y, self.side) @ self.first)]
        return torch.cat(parts + [self._upsampled(level, full.size, x, y) for level in rest], 3)

    def _upsampled(self, level: Level, full: tuple[int, int], x: Tensor, y: Tensor) -> Tensor:
        row, rows = self._weights(y, level.size[0], full[0])
        column, columns = self._weights(x, level.size[1], full[1])
        weights = (rows @ self.rows) * (columns @ self.columns)
        return weights.unflatten(2, (self.side**2, NODES**2)) @ _read(level, column, row, NODES)

    def _weights(self, first: Tensor, length: int, full: int) -> tuple[Tensor, Tensor]:
        """Along one axis: the first node of each block (B, N) int64, and linear weights (B, N, side * NODES)."""
        scale = torch.tensor(length - 1) / torch.tensor(full - 1)
        position = first * scale
        node = position.floor()
        apart = (position - node)[..., None] + (self.pixel * scale - self.node)
        return node.long(), F.relu(1 - apart.abs())


def _read(level: Level, x: Tensor, y: Tensor, side: int) -> Tensor:
    """Blocks of a level's own pixels, (B, N, side * side, C); beyond the edge, those at the edge."""
    height, width = level.size
    step = torch.arange(side)
    rows = (y[..., None] + step).clamp(min=0).minimum(torch.tensor(height - 1))
    columns = (x[..., None] + step).clamp(min=0).minimum(torch.tensor(width - 1))
    index = (rows[..., None] * width + columns[..., None, :]).flatten(2)
    return level.pixels[torch.arange(index.shape[0])[:, None, None], index]
