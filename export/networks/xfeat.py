"""XFeat (Potje, Cadar, Araujo, Martins and Nascimento, CVPR 2024) as an ONNX extractor.

The input is a grey photo with both sides resized down to multiples of 32. One head predicts the probability that each
pixel is a keypoint, from its cell of 8 x 8 pixels only; another predicts the reliability of each cell's descriptor.
Keypoints are local maxima of the probability in windows of 5 x 5. Their score is the probability times the reliability.

Batch normalization is folded into the convolutions. The reliability is sampled at every pixel, not only at the local
maxima, so that one TopK selects the best keypoints of all photos of a batch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lgbatch.export import reference
from lgbatch.export.networks.detect import select_top_k
from lgbatch.export.onnx_graph import Graph, extractor_graph

OPSET = 20
CELL = 8
"""Side of a cell in pixels."""
STRIDE = 32
"""Sides are resized to multiples of this."""
RADIUS = 2
"""Keypoints are local maxima in windows of 5 x 5."""
THRESHOLD = 0.05
"""Exclusive lower bound of the probability of a keypoint."""
EPSILON = 1e-5
"""Added to the variance in all normalizations."""
STRIDES = {"block1": (1, 2, 1, 2), "block2": (1, 1), "block3": (2, 1, 1), "block4": (2, 1, 1), "block5": (2, 1, 1, 1)}
"""Stride of each convolution, by block."""


def graph(state: reference.State, opset: int = OPSET) -> Graph:
    """Return the extractor's graph. Raises KeyError if the state dict belongs to another network."""
    return extractor_graph(XFeatExtractor(state), opset)


class XFeatExtractor(nn.Module):
    """The exported network: photos to padded keypoints, scores and descriptors."""

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
        """Extract the local features of a batch of photos of one size.

        image: (B, 3, H, W) float32, RGB in 0..1. max_keypoints: () int64. detection_threshold: () float32, exclusive
        lower bound of the probability of a keypoint.
        Returns keypoints (B, K, 2) float32 in pixels of the input, top-left pixel centre (0, 0), best first; scores
        (B, K); descriptors (B, K, 64) of unit length; counts (B,) int64. Rows from an image's count on are padding.
        """
        x, ratio = resize_to_stride(image.mean(1, keepdim=True))
        x = x - x.mean((2, 3), keepdim=True)
        x = x / (x.square().mean((2, 3), keepdim=True) + EPSILON).sqrt()
        features = self.features(x)
        probabilities = self.keypoint(F.pixel_unshuffle(x, CELL)).softmax(1)[:, :-1]
        heat = keypoint_probabilities(F.pixel_shuffle(probabilities, CELL)[:, 0], detection_threshold)
        scores = heat * upsample(self.reliability(features).sigmoid())
        index, counts = select_top_k(scores, max_keypoints)
        height, width = scores.shape[1:]
        y = index // width
        keypoints = torch.stack([index - y * width, y], -1).to(scores.dtype)
        unit = keypoints / torch.tensor([width - 1, height - 1]) * 2 - 1
        # As published: normalised with aligned corners, sampled without.
        cells = F.normalize(features, dim=1)
        sampled = F.grid_sample(cells, unit[:, None], mode="bicubic", align_corners=False)[:, :, 0]
        descriptors = F.normalize(sampled, dim=1).transpose(1, 2)
        return keypoints * ratio, scores.flatten(1).gather(1, index), descriptors, counts

    def features(self, x: Tensor) -> Tensor:
        """Dense descriptors (B, 64, H / 8, W / 8), one per cell, of grey photos x (B, 1, H, W); not normalised."""
        first, second, third, fourth, fifth = self.blocks
        x3 = third(second(first(x) + self.skip(F.avg_pool2d(x, 4))))
        x4 = fourth(x3)
        for deeper in (x4, fifth(x4)):
            x3 = x3 + F.interpolate(deeper, x3.shape[2:], mode="bilinear", align_corners=False)
        return self.fusion(x3)  # type: ignore[no-any-return]


def _conv(state: reference.State, name: str) -> nn.Conv2d:
    return _conv2d(state[f"{name}.weight"], state[f"{name}.bias"], 1)


def _normalized(state: reference.State, name: str, stride: int) -> nn.Module:
    scale = (state[f"{name}.layer.1.running_var"] + EPSILON).rsqrt()
    weight = state[f"{name}.layer.0.weight"] * scale[:, None, None, None]
    return nn.Sequential(_conv2d(weight, -state[f"{name}.layer.1.running_mean"] * scale, stride), nn.ReLU())


def _conv2d(weight: Tensor, bias: Tensor, stride: int) -> nn.Conv2d:
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], stride, padding=weight.shape[2] // 2)
    conv.weight, conv.bias = nn.Parameter(weight), nn.Parameter(bias)
    return conv


def resize_to_stride(x: Tensor) -> tuple[Tensor, Tensor]:
    """Resize (B, 1, H, W) so that both sides are multiples of STRIDE, at least one.

    Returns the resized photos and (2,), original over new size along x and y.
    """
    height, width = x.shape[2:]
    rows, columns = (torch.sym_max(side // STRIDE, 1) * STRIDE for side in (height, width))
    ratio = torch.tensor([width, height]) / torch.tensor([columns, rows])
    return F.interpolate(x, (rows, columns), mode="bilinear", align_corners=False), ratio


def keypoint_probabilities(heat: Tensor, threshold: Tensor | float) -> Tensor:
    """Return the probabilities (B, H, W) at keypoints and 0 elsewhere.

    As published, the first pixel is never a keypoint, nor are the last row and column, which the published sampling
    treats as outside.
    """
    is_maximum = heat == F.max_pool2d(heat[:, None], 2 * RADIUS + 1, 1, RADIUS)[:, 0]
    selected = torch.where(is_maximum & (heat > threshold), heat, 0.0)[:, :-1, :-1]
    not_first = torch.arange(selected.shape[1])[:, None] + torch.arange(selected.shape[2]) > 0
    return F.pad(torch.where(not_first, selected, 0.0), (0, 1, 0, 1))


def upsample(cells: Tensor) -> Tensor:
    """Upsample cells (B, 1, H / 8, W / 8) to all pixels, bilinearly: (B, H, W)."""
    x, y = (torch.arange(side * CELL) / (side * CELL - 1) * 2 - 1 for side in (cells.shape[3], cells.shape[2]))
    grid = torch.stack([x.expand(y.shape[0], -1), y[:, None].expand(-1, x.shape[0])], -1)
    grid = grid.expand(cells.shape[0], -1, -1, -1)
    return F.grid_sample(cells, grid, mode="bilinear", align_corners=False)[:, 0]
