"""ALIKED: lighter keypoints and descriptors by deformable transformation (Zhao et al., IEEE TIM 2023), as an extractor.

The network is the published one, in four variants of different widths, with the batch normalisations folded into the
convolutions. Two more rearrangements are exact up to rounding:

- The published score head begins with a linear map of the upsampled and concatenated four levels of the feature
  pyramid. Here each level goes through its part of that map before the upsampling: 8 channels are upsampled instead of
  128.
- The concatenated, normalised feature map is never computed. Only the patches that the descriptors of the selected
  keypoints read are (see pyramid.py).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.onnx.ops import symbolic

from lgbatch.export import reference
from lgbatch.export.networks.detect import THRESHOLD, detect_keypoints, refine_keypoints
from lgbatch.export.networks.pyramid import Level, PatchReader
from lgbatch.export.onnx_graph import Graph, extractor_graph

OPSET = 20
"""ONNX Runtime 1.31 has no CUDA kernels for Selu and MaxPool of opset 22."""
DEFORM_CONV = 19
"""First opset with DeformConv. Graphs of lower opsets use GridSample instead."""
STRIDE = 32
"""Sides are padded to a multiple of this, at both ends, by replicating the edges."""
POOLS = (2, 4, 4)
"""Downsampling factor of each level of the pyramid relative to the one before; the first level has the full size."""
TINY = 1e-12
"""Lower bound of lengths, against division by zero."""


def graph(state: reference.State, opset: int = OPSET) -> Graph:
    """Return the extractor's graph. Raises KeyError if the state dict belongs to another network."""
    return extractor_graph(_extractor(state, use_grid_sample=opset < DEFORM_CONV), opset)


def network(state: reference.State) -> nn.Module:
    """Return the extractor as a module that PyTorch can run. Raises KeyError as `graph`."""
    return _extractor(state, use_grid_sample=True)


def _extractor(state: reference.State, *, use_grid_sample: bool) -> nn.Module:
    extractor = AlikedExtractor(state)
    for module in extractor.modules():
        if isinstance(module, DeformableConv):
            module.use_grid_sample = use_grid_sample
    return extractor


class Conv(nn.Module):
    """A 1 x 1 or 3 x 3 convolution that keeps the size."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = None if bias is None else nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inside, H, W) to (B, outside, H, W)."""
        return F.conv2d(x, self.weight, self.bias, padding=self.weight.shape[-1] // 2)


class DeformableConv(nn.Module):
    """A 3 x 3 deformable convolution, whose offsets another convolution predicts."""

    use_grid_sample = False
    """Whether to export GridSample, for runtimes without DeformConv."""

    def __init__(self, offset: Conv, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.offset = offset
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inside, H, W) to (B, outside, H, W)."""
        batch, _, height, width = x.shape
        offset = clamp_offsets(self.offset(x), height, width)
        if self.use_grid_sample:
            return self._grid_sampled(x, offset)
        return symbolic(
            "DeformConv",
            (x, self.weight, offset, self.bias),
            {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]},
            dtype=x.dtype,
            shape=(batch, self.weight.shape[0], height, width),
            version=DEFORM_CONV,
        )

    def _grid_sampled(self, x: Tensor, offset: Tensor) -> Tensor:
        """Compute the convolution with GridSample; offset (B, 18, H, W) holds y and x of each tap."""
        height, width = x.shape[2:]
        step = torch.arange(-1, 2)
        offset = offset.unflatten(1, (3, 3, 2))
        down = offset[:, :, :, 0] + (torch.arange(height)[:, None] + step[:, None, None, None])
        across = offset[:, :, :, 1] + (torch.arange(width) + step[:, None, None])
        grid = ((2 * torch.stack([across, down], -1) + 1) / torch.tensor([width, height]) - 1).flatten(1, 3)
        taps = F.grid_sample(x, grid, align_corners=False).unflatten(2, (9, height))
        out = self.weight.flatten(1) @ taps.flatten(1, 2).flatten(2)
        return out.unflatten(2, (height, width)) + self.bias[:, None, None]


def clamp_offsets(offset: Tensor, height: int, width: int) -> Tensor:
    """Clamp offsets in pixels to a quarter of the long side of the map."""
    limit = torch.sym_max(height, width) / 4
    return offset.clamp(-limit, limit)


class Block(nn.Module):
    """Two convolutions, with a 1 x 1 convolution as the skip connection if the weights have one."""

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
    """Return a convolution of a block, deformable or not, with its batch normalisation folded in."""
    conv, norm = f"{block}.conv{index}", f"{block}.bn{index}"
    scale = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + 1e-5).sqrt()
    bias = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale
    if f"{conv}.weight" in state:
        return Conv(state[f"{conv}.weight"] * scale[:, None, None, None], bias)
    offset = Conv(state[f"{conv}.offset_conv.weight"], state[f"{conv}.offset_conv.bias"])
    return DeformableConv(offset, state[f"{conv}.regular_conv.weight"] * scale[:, None, None, None], bias)


class AlikedExtractor(nn.Module):
    """The exported network: photos to padded keypoints, scores and descriptors."""

    def __init__(self, state: reference.State) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(state, f"block{i}") for i in (1, 2, 3, 4))
        self.aggregate = nn.ParameterList(_matrix(state[f"conv{i}.weight"]) for i in (1, 2, 3, 4))
        parts = state["score_head.0.weight"].chunk(4, 1)
        self.parts = nn.ParameterList(_matrix(part).T.contiguous() for part in parts)
        self.head = nn.ModuleList(Conv(state[f"score_head.{i}.weight"]) for i in (2, 4, 6))
        self.describe = DescriptorHead(state)

    def forward(
        self, image: Tensor, max_keypoints: Tensor, detection_threshold: Tensor | float = THRESHOLD
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Extract the local features of a batch of photos of one size.

        image: (B, 3, H, W) float32, RGB in 0..1. max_keypoints: () int64. detection_threshold: () float32, exclusive
        lower bound of the scores; for a photo without scores above it, the bound is its mean score.
        Returns keypoints (B, K, 2) float32 in pixels of the input, top-left pixel centre (0, 0), sorted by the score
        before the refinement, best first; scores (B, K) after it; descriptors (B, K, D) of unit length; counts (B,)
        int64. Rows from an image's count on are padding.
        """
        height, width = image.shape[-2:]
        top, left = (-side % STRIDE // 2 for side in (height, width))
        levels, heat = self.maps(image)
        scores = heat[:, 0, top : top + height, left : left + width]
        index, counts = detect_keypoints(scores, max_keypoints, detection_threshold)
        keypoints, scores = refine_keypoints(scores, index)
        return keypoints, scores, self.describe(levels, keypoints, (height, width), (top, left)), counts

    def maps(self, image: Tensor) -> tuple[list[Level], Tensor]:
        """Return the levels of the pyramid and the scores (B, 1, H, W) of photos (B, 3, h, w).

        H and W are the sides rounded up to multiples of STRIDE. Half of the padding, rounded down, is above and on the
        left. The first level is before its aggregation.
        """
        down, right = (-side % STRIDE for side in image.shape[-2:])
        top, left = down // 2, right // 2
        x = self.blocks[0](F.pad(image, (left, right - left, top, down - top), mode="replicate"))
        full = x.shape[2:]
        # Matrix products instead of 1 x 1 convolutions, whose results ONNX Runtime reorders (measured).
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
        return levels, heat.sigmoid()


class DescriptorHead(nn.Module):
    """Sparse deformable descriptors: 3 x 3 patches predict sample positions, a linear map combines the samples."""

    def __init__(self, state: reference.State) -> None:
        super().__init__()
        first = _matrix(state["conv1.weight"])
        self.patch, self.square = PatchReader(3, first), PatchReader(2, first)
        # Rows in the order of PatchReader: pixel, then channel.
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
        """Return the descriptors (B, K, D), of unit length, of keypoints (B, K, 2) in pixels of the photo.

        The photo has the `size` (height, width). Its top-left pixel is at `corner` (y, x) of the full-size level.
        """
        (height, width), (top, left) = size, corner
        # As published, a patch ends at least one pixel before the right and bottom edges.
        x, y = (
            (keypoints[..., i].long() - 1).clamp(min=0).minimum(torch.tensor(side - 4))
            for i, side in ((0, width), (1, height))
        )
        patch = self.patch(levels, x + left, y + top)
        patch = patch / _norm(patch)[..., None]
        offset = clamp_offsets(self.outside(F.selu(self.inside(patch.flatten(2)))), height, width)
        x, y = ((keypoints[..., i, None] + part).flatten(1) for i, part in enumerate(offset.chunk(2, 2)))
        low_x, low_y = x.floor(), y.floor()
        square = self.square(levels, low_x.long() + left, low_y.long() + top)
        right, down = low_x[..., None] + self.right, low_y[..., None] + self.down
        weight = (1 - (x[..., None] - right).abs()) * (1 - (y[..., None] - down).abs())
        inside = (right >= 0) & (right < width) & (down >= 0) & (down < height)
        weight = torch.where(inside, weight, 0.0) / _norm(square)
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


def _norm(x: Tensor) -> Tensor:
    """Return the lengths (...) of vectors (..., C), at least TINY."""
    return torch.linalg.vector_norm(x, dim=-1).clamp(min=TINY)


def _matrix(weight: Tensor) -> Tensor:
    """Return the weight (out, in, 1, 1) of a 1 x 1 convolution as a matrix (in, out) for products from the right."""
    return weight[:, :, 0, 0].T.contiguous()
