"""ALIKED's keypoints out of its score map: local maxima, refined to a fraction of a pixel (differentiable keypoint
detection, Zhao et al., IEEE Transactions on Multimedia 2022).
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

RADIUS = 2
"""Keypoints are local maxima in windows of 5 x 5, and keep this far from the edges."""
WINDOW = 2 * RADIUS + 1
THRESHOLD = 0.2
"""Least score of a keypoint; where the whole image has none, the mean score."""
TEMPERATURE = 0.1
"""Of the softmax that refines a keypoint."""


def choose(scores: Tensor, max_keypoints: Tensor, threshold: Tensor | float) -> tuple[Tensor, Tensor]:
    """The strongest keypoints of scores (B, H, W) in 0..1, best first: raster indices (B, K), counts (B,).

    K is the greatest count, at least 1. Rows from an image's count on are padding.
    """
    height, width = scores.shape[1:]
    inner = maxima(scores)[:, RADIUS : height - RADIUS, RADIUS : width - RADIUS]
    strong = (inner > threshold).flatten(1).any(1)
    least = torch.where(strong, threshold, scores.mean((1, 2)))
    inner = torch.where(inner > least[:, None, None], inner, 0.0)
    return strongest(F.pad(inner, (RADIUS, RADIUS, RADIUS, RADIUS)), max_keypoints)


def strongest(scores: Tensor, max_keypoints: Tensor) -> tuple[Tensor, Tensor]:
    """The greatest of scores (B, H, W), of which 0 is none, as `choose`."""
    height, width = scores.shape[1:]
    masked = scores.flatten(1)
    found = (masked > 0).sum(1)
    k = cast(int, torch.minimum(max_keypoints, found.amax(0).clamp(min=1)).item())  # no empty tensors further on
    torch._check(k >= 1)
    torch._check(k <= height * width)
    return torch.topk(masked, k, dim=1)[1], torch.minimum(found, max_keypoints)


def maxima(scores: Tensor, radius: int = RADIUS) -> Tensor:
    """The scores (B, H, W) of local maxima, 0 elsewhere. Each round finds more, away from those that were found."""

    def window_max(x: Tensor) -> Tensor:
        return F.max_pool2d(x[:, None], 2 * radius + 1, 1, radius)[:, 0]

    found = scores == window_max(scores)
    for _ in range(2):
        near = window_max(found.to(scores.dtype)) > 0
        rest = torch.where(near, 0.0, scores)
        found = found | ((rest == window_max(rest)) & ~near)
    return torch.where(found, scores, 0.0)


def refine(scores: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Where in its 5 x 5 window each keypoint's score is centred, by a softmax.

    scores (B, H, W) and raster indices (B, K) to keypoints (B, K, 2) in pixels, and their scores there (B, K).
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
    # To -1..1 and back, as published: the descriptors look at the pixel left of a keypoint, to the last bit.
    unit = keypoints / last * 2 - 1
    values = F.grid_sample(scores[:, None], unit[:, None], align_corners=True)[:, 0, 0]
    return (unit / 2 + 0.5) * last, values
