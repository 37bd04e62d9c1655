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


def quadratic_maxima(values: Tensor, xs: Tensor, ys: Tensor) -> Tensor:
    """Move pixels (N,), (N,) of values (H, W) to the maximum of the quadratic fit to the 3 x 3 values around: (N, 2).

    By at most half a pixel along x and y, and not at all if the fit has no maximum. Values are reflected at the edges.
    """
    padded = F.pad(values[None, None], (1, 1, 1, 1), mode="reflect")[0, 0]
    windows = padded.unfold(0, 3, 1).unfold(1, 3, 1)[ys, xs].flatten(1)
    x, y = torch.tensor([-1.0, 0, 1]).repeat(3), torch.tensor([-1.0, 0, 1]).repeat_interleave(3)
    terms = torch.stack([torch.ones(9), x, y, x * x / 2, x * y, y * y / 2], 1)
    fitted = (windows - windows[:, 4:5]) @ torch.linalg.pinv(terms).T
    hessian = fitted[:, [3, 4, 4, 5]].unflatten(1, (2, 2))
    is_maximum = torch.linalg.eigvalsh(hessian)[:, -1] < 0
    hessian[~is_maximum] = torch.eye(2)
    offsets = -torch.linalg.solve(hessian, fitted[:, 1:3]).clamp(-0.5, 0.5)
    return torch.stack([xs, ys], 1) + offsets * is_maximum[:, None]
