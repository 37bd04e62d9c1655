"""XFeat (Potje, Cadar, Araujo, Martins and Nascimento, CVPR 2024) as an ONNX extractor.

The network sees a grey photo, of which each side is resized down to a multiple of 32. Two heads tell how likely each
pixel is a keypoint, from its cell of 8 x 8 pixels alone, and how reliable the descriptor of each cell is. Keypoints
are local maxima of the first in windows of 5 x 5; their score is both multiplied.

Batch normalization is folded into the convolutions. The reliability is sampled at every pixel rather than at the
local maxima, so that the strongest of each photo of a batch are found at once.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lgbatch.export import reference
from lgbatch.export.networks.detect import strongest
from lgbatch.export.onnx_graph import Graph, of_extractor

OPSET = 20
CELL = 8
STRIDE = 32
"""Sides are resized to multiples of this."""
RADIUS = 2
"""Keypoints are local maxima in windows of 5 x 5."""
THRESHOLD = 0.05
"""Least likelihood of a keypoint."""
EPSILON = 1e-5
"""Of all normalizations."""
STRIDES = {"block1": (1, 2, 1, 2), "block2": (1, 1), "block3": (2, 1, 1), "block4": (2, 1, 1), "block5": (2, 1, 1, 1)}
"""Of each convolution."""


def graph(state: reference.State, opset: int = OPSET) -> Graph:
    """The extractor, ready to be written. Raises KeyError when the state dict is another network's."""
    return of_extractor(XFeatExtractor(state), opset)


class XFeatExtractor(nn.Module):
    """The graph that is exported: photos in, padded keypoints out."""

    def __init__(self, state: reference.State) -> None:
        super().__init__()
        self.skip = _conv(state, "skip1.1")
        self.blocks = nn.ModuleList(
            nn.Sequential(*(_normalized(state, f"{name}.{i}", stride) for i, stride in enumerate(strides)))
            for name, strides in STRIDES.items()
        )
        self.fusion, self.reliability, self.keypoint = (
            nn.Sequential(
                *(_normalized(state, f"{name}.{i}", 1) for i in range(count)), _conv(state, f"{name}.{count}")
            )
            for name, count in (("block_fusion", 2), ("heatmap_head", 2), ("keypoint_head", 3))
        )

    def forward(
        self, image: Tensor, max_keypoints: Tensor, detection_threshold: Tensor | float = THRESHOLD
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Extract.

        image: (B, 3, H, W) float32, RGB in 0..1. max_keypoints: () int64. detection_threshold: () float32, which a
        keypoint's score exceeds.
        Returns keypoints (B, K, 2) float32 in pixels of the input, top-left pixel centre (0, 0); scores (B, K);
        descriptors (B, K, 64) of unit length; counts (B,) int64. Rows from an image's count on are padding.
        """
        x, ratio = resized(image.mean(1, keepdim=True))
        x = x - x.mean((2, 3), keepdim=True)
        x = x / (x.square().mean((2, 3), keepdim=True) + EPSILON).sqrt()
        features = self.features(x)
        cells = self.keypoint(F.pixel_unshuffle(x, CELL)).softmax(1)[:, :-1]
        heat = likely(F.pixel_shuffle(cells, CELL)[:, 0], detection_threshold)
        scores = heat * everywhere(self.reliability(features).sigmoid())
        index, counts = strongest(scores, max_keypoints)
        height, width = scores.shape[1:]
        y = index // width
        keypoints = torch.stack([index - y * width, y], -1).to(scores.dtype)
        unit = keypoints / torch.tensor([width - 1, height - 1]) * 2 - 1
        # Published so: places are told as if corners were aligned, and read as if they were not.
        found = F.grid_sample(F.normalize(features, dim=1), unit[:, None], mode="bicubic", align_corners=False)[:, :, 0]
        descriptors = F.normalize(found, dim=1).transpose(1, 2)
        return keypoints * ratio, scores.flatten(1).gather(1, index), descriptors, counts

    def features(self, x: Tensor) -> Tensor:
        """What the cells of x (B, 1, H, W) look like: (B, 64, H / 8, W / 8)."""
        first, second, third, fourth, fifth = self.blocks
        x3 = third(second(first(x) + self.skip(F.avg_pool2d(x, 4))))
        x4 = fourth(x3)
        for deeper in (x4, fifth(x4)):
            x3 = x3 + F.interpolate(deeper, x3.shape[2:], mode="bilinear", align_corners=False)
        return self.fusion(x3)  # type: ignore[no-any-return]


def _conv(state: reference.State, name: str) -> nn.Conv2d:
    return _with(state[f"{name}.weight"], state[f"{name}.bias"], 1)


def _normalized(state: reference.State, name: str, stride: int) -> nn.Module:
    scale = (state[f"{name}.layer.1.running_var"] + EPSILON).rsqrt()
    weight = state[f"{name}.layer.0.weight"] * scale[:, None, None, None]
    return nn.Sequential(_with(weight, -state[f"{name}.layer.1.running_mean"] * scale, stride), nn.ReLU())


def _with(weight: Tensor, bias: Tensor, stride: int) -> nn.Conv2d:
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], stride, padding=weight.shape[2] // 2)
    conv.weight, conv.bias = nn.Parameter(weight), nn.Parameter(bias)
    return conv


def resized(x: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 1, H, W) with sides cut down to multiples of STRIDE, at least one; how much longer they were (2,), x, y."""
    height, width = x.shape[2:]
    rows, columns = (torch.sym_max(side // STRIDE, 1) * STRIDE for side in (height, width))
    ratio = torch.tensor([width, height]) / torch.tensor([columns, rows])
    return F.interpolate(x, (rows, columns), mode="bilinear", align_corners=False), ratio


def likely(heat: Tensor, threshold: Tensor | float) -> Tensor:
    """The likelihoods (B, H, W) of keypoints, 0 elsewhere.

    Published so: the first pixel is not chosen, nor are the last row and column, which sampling takes for outside.
    """
    best = heat == F.max_pool2d(heat[:, None], 2 * RADIUS + 1, 1, RADIUS)[:, 0]
    chosen = torch.where(best & (heat > threshold), heat, 0.0)[:, :-1, :-1]
    inside = torch.arange(chosen.shape[1])[:, None] + torch.arange(chosen.shape[2]) > 0
    return F.pad(torch.where(inside, chosen, 0.0), (0, 1, 0, 1))


def everywhere(cells: Tensor) -> Tensor:
    """The values of cells (B, 1, H / 8, W / 8) at all pixels, between them linear: (B, H, W)."""
    x, y = (torch.arange(side * CELL) / (side * CELL - 1) * 2 - 1 for side in (cells.shape[3], cells.shape[2]))
    places = torch.stack([x.expand(y.shape[0], -1), y[:, None].expand(-1, x.shape[0])], -1)
    places = places.expand(cells.shape[0], -1, -1, -1)
    return F.grid_sample(cells, places, mode="bilinear", align_corners=False)[:, 0]
