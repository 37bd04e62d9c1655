"""Types and operations that the reference implementations share."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

State = Mapping[str, Tensor]
"""A state dict with the names of the published weights."""
Features = tuple[Tensor, Tensor, Tensor]
"""Keypoints (N, 2) in pixels, top-left pixel centre (0, 0), scores (N,), and descriptors (N, D) of unit length."""


def linear(state: State, name: str, x: Tensor) -> Tensor:
    """Apply the linear layer `name` to x (..., in): (..., out)."""
    return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def sample_bilinear(x: Tensor, points: Tensor) -> Tensor:
    """Sample x (C, H, W) bilinearly, with zeros outside, at points (N, 2) in pixels: (C, N)."""
    size = torch.tensor(x.shape[:0:-1])
    grid = (2 * points + 1) / size - 1
    return F.grid_sample(x[None], grid[None, None], align_corners=False)[0, :, 0]
