"""ALIKED: lighter keypoints and descriptors by deformable transformation (Zhao et al., IEEE TIM 2023), as an extractor.

The network is the published one, in four variants that differ in their widths, with the batch normalisations folded
into the convolutions. Two more rearrangements are exact up to rounding. The score head begins with a linear map of
the four levels of the feature pyramid, upsampled and concatenated: here each level goes through its part of that map
first, and 8 channels are upsampled instead of 128. And the concatenated, normalised map is never made: what the
descriptors of the chosen keypoints read of it is computed for them alone.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.onnx.ops import symbolic

from lgbatch.export import reference
from lgbatch.export.networks.detect import THRESHOLD, choose, refine
from lgbatch.export.networks.pyramid import Blocks, Level
from lgbatch.export.onnx_graph import Graph, of_extractor

OPSET = 22
"""Where DeformConv begins to be as it is meant here; below it, pixels are sampled one by one."""
STRIDE = 32
"""Sides are padded to a multiple of this, at both ends, with the pixels at the edge."""
POOLS = (2, 4, 4)
"""How much smaller each level of the pyramid is than the one before; the first is full-size."""
TINY = 1e-12


def graph(state: reference.State, opset: int = OPSET) -> Graph:
    """The extractor, ready to be written. Raises KeyError when the state dict is another network's."""
    network = AlikedExtractor(state)
    for part in network.modules():
        if isinstance(part, DeformableConv):
            part.sampled = opset < OPSET
    return of_extractor(network, opset)


class Conv(nn.Module):
    """A convolution that keeps the size, 1 x 1 or 3 x 3."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = None if bias is None else nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inside, H, W) to (B, outside, H, W)."""
        return F.conv2d(x, self.weight, self.bias, padding=self.weight.shape[-1] // 2)


class DeformableConv(nn.Module):
    """A 3 x 3 convolution that looks where another one tells it to."""

    sampled = False
    """Whether by GridSample, for programs that do not have DeformConv."""

    def __init__(self, offset: Conv, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.offset = offset
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inside, H, W) to (B, outside, H, W)."""
        batch, _, height, width = x.shape
        offset = within(self.offset(x), height, width)
        if self.sampled:
            return self._sampled(x, offset)
        return symbolic(
            "DeformConv",
            (x, self.weight, offset, self.bias),
            {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]},
            dtype=x.dtype,
            shape=(batch, self.weight.shape[0], height, width),
            version=OPSET,
        )

    def _sampled(self, x: Tensor, offset: Tensor) -> Tensor:
        """With GridSample. Offsets (B, 18, H, W) are y and x of each tap."""
        height, width = x.shape[2:]
        step = torch.arange(-1, 2)
        offset = offset.unflatten(1, (3, 3, 2))
        down = offset[:, :, :, 0] + (torch.arange(height)[:, None] + step[:, None, None, None])
        across = offset[:, :, :, 1] + (torch.arange(width) + step[:, None, None])
        places = ((2 * torch.stack([across, down], -1) + 1) / torch.tensor([width, height]) - 1).flatten(1, 3)
        taps = F.grid_sample(x, places, align_corners=False).unflatten(2, (9, height))
        out = self.weight.flatten(1) @ taps.flatten(1, 2).flatten(2)
        return out.unflatten(2, (height, width)) + self.bias[:, None, None]


def within(offset: Tensor, height: int, width: int) -> Tensor:
    """Offsets in pixels of a map, none longer than a quarter of its long side."""
    limit = torch.sym_max(height, width) / 4
    return offset.clamp(-limit, limit)


class Block(nn.Module):
    """Two convolutions, and around them a 1 x 1 one where the published network has it."""

    def __init__(self, state: reference.State, name: str) -> None:
        super().__init__()
        self.first, self.second = (_conv(state, name, i) for i in (1, 2))
        self.around = None
        if f"{name}.downsample.weight" in state:
            self.around = Conv(state[f"{name}.downsample.weight"], state[f"{name}.downsample.bias"])

    def forward(self, x: Tensor) -> Tensor:
        """(B, inside, H, W) to (B, outside, H, W)."""
        y = self.second(F.selu(self.first(x)))
        return F.selu(y if self.around is None else y + self.around(x))


def _conv(state: reference.State, block: str, index: int) -> nn.Module:
    """A convolution with its batch normalisation folded in."""
    conv, norm = f"{block}.conv{index}", f"{block}.bn{index}"
    scale = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + 1e-5).sqrt()
    bias = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale
    if f"{conv}.weight" in state:
        return Conv(state[f"{conv}.weight"] * scale[:, None, None, None], bias)
    offset = Conv(state[f"{conv}.offset_conv.weight"], state[f"{conv}.offset_conv.bias"])
    return DeformableConv(offset, state[f"{conv}.regular_conv.weight"] * scale[:, None, None, None], bias)


class AlikedExtractor(nn.Module):
    """The graph that is exported: photos in, padded keypoints out."""

    def __init__(self, state: reference.State) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(state, f"block{i}") for i in (1, 2, 3, 4))
        self.aggregate = nn.ParameterList(_matrix(state[f"conv{i}.weight"]) for i in (1, 2, 3, 4))
        parts = state["score_head.0.weight"].chunk(4, 1)
        self.parts = nn.ParameterList(_matrix(part).T.contiguous() for part in parts)
        self.head = nn.ModuleList(Conv(state[f"score_head.{i}.weight"]) for i in (2, 4, 6))
        self.describe = Descriptors(state)

    def forward(
        self, image: Tensor, max_keypoints: Tensor, detection_threshold: Tensor | float = THRESHOLD
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Extract.

        image: (B, 3, H, W) float32, RGB in 0..1. max_keypoints: () int64. detection_threshold: () float32, which a
        keypoint's score exceeds, unless the photo has none such.
        Returns keypoints (B, K, 2) float32 in pixels of the input, top-left pixel centre (0, 0); scores (B, K);
        descriptors (B, K, D) of unit length; counts (B,) int64. Rows from an image's count on are padding.
        """
        height, width = image.shape[-2:]
        down, right = -height % STRIDE, -width % STRIDE
        top, left = down // 2, right // 2
        x = self.blocks[0](F.pad(image, (left, right - left, top, down - top), mode="replicate"))
        full = x.shape[2:]
        # Channels first, as products: ONNX Runtime's 1 x 1 convolution reorders its result (measured).
        heat = (self.parts[0] @ F.selu(self.aggregate[0].T @ x.flatten(2))).unflatten(2, full)
        levels = [Level(x.flatten(2).transpose(1, 2), full)]
        for block, pool, weight, part in zip(self.blocks[1:], POOLS, self.aggregate[1:], self.parts[1:], strict=True):
            x = block(F.avg_pool2d(x, pool))
            level = Level(F.selu(x.flatten(2).transpose(1, 2) @ weight), x.shape[2:])
            small = (part @ level.pixels.transpose(1, 2)).unflatten(2, level.size)
            heat = heat + F.interpolate(small, full, mode="bilinear", align_corners=True)
            levels.append(level)
        for conv in self.head:
            heat = conv(F.selu(heat))
        scores = heat.sigmoid()[:, 0, top : top + height, left : left + width]
        index, counts = choose(scores, max_keypoints, detection_threshold)
        keypoints, scores = refine(scores, index)
        return keypoints, scores, self.describe(levels, keypoints, (height, width), (top, left)), counts


class Descriptors(nn.Module):
    """Each keypoint's 3 x 3 pixels tell where around it to sample; a descriptor is a linear map of the samples."""

    def __init__(self, state: reference.State) -> None:
        super().__init__()
        first = _matrix(state["conv1.weight"])
        self.patch, self.square = Blocks(3, first), Blocks(2, first)
        # Rows in the order of Blocks: pixel, then channel.
        inside = state["desc_head.offset_conv.0.weight"].permute(2, 3, 1, 0).flatten(0, 2)
        self.inside = Dense(inside, state["desc_head.offset_conv.0.bias"])
        self.outside = Dense(_matrix(state["desc_head.offset_conv.2.weight"]), state["desc_head.offset_conv.2.bias"])
        self.feature = nn.Parameter(_matrix(state["desc_head.sf_conv.weight"]))
        self.samples = state["desc_head.agg_weights"].shape[0]
        self.sum = nn.Parameter(state["desc_head.agg_weights"].flatten(0, 1))
        self.right, self.down = (nn.Parameter(torch.tensor(step)) for step in ([0.0, 1, 0, 1], [0.0, 0, 1, 1]))

    def forward(
        self, levels: Sequence[Level], keypoints: Tensor, size: tuple[int, int], corner: tuple[int, int]
    ) -> Tensor:
        """Descriptors (B, K, D), of unit length, of keypoints (B, K, 2) in pixels of the photo.

        The photo is of `size` (height, width), and its top-left pixel is at `corner` (y, x) of the full-size level.
        """
        (height, width), (top, left) = size, corner
        # Published so: the last place of a patch is one pixel further from the right and lower edge than need be.
        x, y = (
            (keypoints[..., i].long() - 1).clamp(min=0).minimum(torch.tensor(side - 4))
            for i, side in ((0, width), (1, height))
        )
        patch = self.patch(levels, x + left, y + top)
        patch = patch / _length(patch)[..., None]
        offset = within(self.outside(F.selu(self.inside(patch.flatten(2)))), height, width)
        x, y = ((keypoints[..., i, None] + part).flatten(1) for i, part in enumerate(offset.chunk(2, 2)))
        low_x, low_y = x.floor(), y.floor()
        square = self.square(levels, low_x.long() + left, low_y.long() + top)
        right, down = low_x[..., None] + self.right, low_y[..., None] + self.down
        weight = (1 - (x[..., None] - right).abs()) * (1 - (y[..., None] - down).abs())
        seen = (right >= 0) & (right < width) & (down >= 0) & (down < height)
        weight = torch.where(seen, weight, 0.0) / _length(square)
        sampled = (weight[:, :, None] @ square)[:, :, 0]
        features = F.selu(sampled @ self.feature).unflatten(1, (-1, self.samples)).flatten(2)
        return F.normalize(features @ self.sum, dim=-1)


class Dense(nn.Module):
    """x W + b."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        return x @ self.weight + self.bias


def _length(x: Tensor) -> Tensor:
    """The lengths of vectors (..., C), by which they may be divided: (...)."""
    return torch.linalg.vector_norm(x, dim=-1).clamp(min=TINY)


def _matrix(weight: Tensor) -> Tensor:
    """A 1 x 1 convolution's weight (out, in, 1, 1) as it is multiplied from the right, (in, out)."""
    return weight[:, :, 0, 0].T.contiguous()
