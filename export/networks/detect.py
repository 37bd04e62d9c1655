"""Keypoint selection from score maps: local maxima, the best K, and their refinement to subpixel positions.

ALIKED's detector is the differentiable keypoint detection of Zhao et al., IEEE Transactions on Multimedia 2022. The
published DISK has keypoints at whole pixels; here they move to the maximum of a quadratic fit.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

RADIUS = 2
"""ALIKED's keypoints are local maxima in windows of 5 x 5, at least this many pixels from the edges."""
WINDOW = 2 * RADIUS + 1
THRESHOLD = 0.2
"""Exclusive lower bound of ALIKED's scores. If no score of an image exceeds it, the bound is the mean score."""
TEMPERATURE = 0.1
"""Temperature of the softmax that refines a keypoint."""


def detect_keypoints(scores: Tensor, max_keypoints: Tensor, threshold: Tensor | float) -> tuple[Tensor, Tensor]:
    """Select ALIKED's keypoints from scores (B, H, W) in 0..1, best first.

    Returns raster indices (B, K) and counts (B,). K is the largest count, at least 1; rows from an image's count on are
    padding.
    """
    height, width = scores.shape[1:]
    inner = local_maxima(scores)[:, RADIUS : height - RADIUS, RADIUS : width - RADIUS]
    exceeded = (inner > threshold).flatten(1).any(1)
    bound = torch.where(exceeded, threshold, scores.mean((1, 2)))
    inner = torch.where(inner > bound[:, None, None], inner, 0.0)
    return select_top_k(F.pad(inner, (RADIUS, RADIUS, RADIUS, RADIUS)), max_keypoints)


def select_top_k(scores: Tensor, max_keypoints: Tensor) -> tuple[Tensor, Tensor]:
    """Select the best positive scores (B, H, W): raster indices and counts, as `detect_keypoints`."""
    height, width = scores.shape[1:]
    masked = scores.flatten(1)
    counts = (masked > 0).sum(1)
    k = cast(int, torch.minimum(max_keypoints, counts.amax(0).clamp(min=1)).item())  # K >= 1: avoid empty tensors
    torch._check(k >= 1)
    torch._check(k <= height * width)
    return torch.topk(masked, k, dim=1)[1], torch.minimum(counts, max_keypoints)


def local_maxima(scores: Tensor, radius: int = RADIUS) -> Tensor:
    """Return the scores (B, H, W) at local maxima and 0 elsewhere (non-maximum suppression).

    Each of three rounds adds maxima among the pixels outside the windows of those found before.
    """

    def window_max(x: Tensor) -> Tensor:
        return F.max_pool2d(x[:, None], 2 * radius + 1, 1, radius)[:, 0]

    is_maximum = scores == window_max(scores)
    for _ in range(2):
        suppressed = window_max(is_maximum.to(scores.dtype)) > 0
        rest = torch.where(suppressed, 0.0, scores)
        is_maximum = is_maximum | ((rest == window_max(rest)) & ~suppressed)
    return torch.where(is_maximum, scores, 0.0)


def refine_keypoints(scores: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Refine keypoints to subpixel positions: the softmax-weighted mean of the positions in a 5 x 5 window.

    scores (B, H, W) and raster indices (B, K) to keypoints (B, K, 2) in pixels, top-left pixel centre (0, 0), and the
    interpolated scores there (B, K).
    """
    height, width = scores.shape[1:]
    y = index // width
    x = index - y * width
    step = torch.arange(-RADIUS, RADIUS + 1)
    rows = (y[..., None, None] + step[:, None]).clamp(min=0).minimum(torch.tensor(height - 1))
    columns = (x[..., None, None] + step).clamp(min=0).minimum(torch.tensor(width - 1))
    window = scores.flatten(1).gather(1, (rows * width + columns).flatten(1)).unflatten(1, (-1, WINDOW**2))
    weight = ((window - window.amax(-1, keepdim=True)) / TEMPERATURE).exp()
    grid = torch.cartesian_prod(step, step).flip(1).to(scores.dtype)
    last = torch.tensor([width - 1, height - 1])
    keypoints = torch.stack([x, y], -1) + weight @ grid / weight.sum(-1, keepdim=True)
    # To -1..1 and back, as published: the descriptors truncate these coordinates, so every bit matters.
    unit = keypoints / last * 2 - 1
    values = F.grid_sample(scores[:, None], unit[:, None], align_corners=True)[:, 0, 0]
    return (unit / 2 + 0.5) * last, values


def neighbours(scores: Tensor, index: Tensor) -> Tensor:
    """Gather the 3 x 3 scores around pixels, in raster order, reflected at the edges.

    scores (B, H, W), each side at least 2, and raster indices (B, K) to (B, K, 9).
    """
    height, width = scores.shape[1:]
    y = index // width
    x = index - y * width
    step, last = torch.arange(-1, 2), torch.tensor([height - 1, width - 1])
    rows = last[0] - (last[0] - (y[..., None, None] + step[:, None]).abs()).abs()
    columns = last[1] - (last[1] - (x[..., None, None] + step).abs()).abs()
    return scores.flatten(1).gather(1, (rows * width + columns).flatten(1)).unflatten(1, (-1, 9))


def quadratic_offsets(values: Tensor) -> Tensor:
    """Return the offset of the maximum around each pixel: values (..., 9) of `neighbours` to x, y (..., 2) in pixels.

    It is that of the quadratic function of x and y that fits the nine values best, by least squares (the facet model of
    Haralick), at most half a pixel along each axis, and 0 if the function has no maximum.
    """
    y, x = torch.cartesian_prod(torch.arange(-1.0, 2), torch.arange(-1.0, 2)).T
    fit = torch.stack([x / 6, y / 6, x.square() - 2 / 3, y.square() - 2 / 3, x * y / 4], -1)
    dx, dy, dxx, dyy, dxy = ((values - values[..., 4:5]) @ fit).unbind(-1)
    determinant = dxx * dyy - dxy.square()
    is_maximum = (dxx < 0) & (determinant > 0)
    newton = torch.stack([dxy * dy - dyy * dx, dxy * dx - dxx * dy], -1)
    offsets = newton / torch.where(is_maximum, determinant, 1.0)[..., None]
    return torch.where(is_maximum[..., None], offsets, 0.0).clamp(-0.5, 0.5)
