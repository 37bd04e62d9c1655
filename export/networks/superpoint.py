"""SuperPoint (DeTone, Malisiewicz and Rabinovich, CVPR Workshops 2018) as an ONNX extractor.

The network works on cells of 8 x 8 pixels. For each it tells how likely each of its pixels is a keypoint, or none of
them, and a descriptor. Selection follows LightGlue's SuperPoint: local maxima in windows of 9 x 9, found in three
rounds, that score more than 0.0005 and keep 4 pixels away from the edges of the whole cells. Pixels of a last row or
column of cells that is not whole are seen by the network, but never chosen.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lgbatch.export import reference
from lgbatch.export.networks.detect import maxima, strongest
from lgbatch.export.onnx_graph import Graph, of_extractor

OPSET = 20
CELL = 8
RADIUS = 4
"""Keypoints are local maxima in windows of 9 x 9."""
BORDER = 4
"""Keypoints keep this far from the edges."""
THRESHOLD = 0.0005
"""Least score of a keypoint."""
GREY = (0.299, 0.587, 0.114)
"""What red, green and blue count for."""


def graph(state: reference.State, opset: int = OPSET) -> Graph:
    """The extractor, ready to be written. Raises KeyError when the state dict is another network's."""
    return of_extractor(SuperPointExtractor(state), opset)


class SuperPointExtractor(nn.Module):
    """The graph that is exported: photos in, padded keypoints out."""

    def __init__(self, state: reference.State) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(_conv(state, f"conv{i}{part}") for i in (1, 2, 3, 4) for part in "ab")
        self.score, self.describe = (nn.ModuleList(_conv(state, f"conv{head}{part}") for part in "ab") for head in "PD")
        self.grey = nn.Parameter(torch.tensor(GREY)[:, None, None])

    def forward(
        self, image: Tensor, max_keypoints: Tensor, detection_threshold: Tensor | float = THRESHOLD
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Extract.

        image: (B, 3, H, W) float32, RGB in 0..1. max_keypoints: () int64. detection_threshold: () float32, which a
        keypoint's score exceeds.
        Returns keypoints (B, K, 2) float32 in pixels of the input, top-left pixel centre (0, 0); scores (B, K);
        descriptors (B, K, 256) of unit length; counts (B,) int64. Rows from an image's count on are padding.
        """
        x = at_least_a_cell((image * self.grey).sum(1, keepdim=True))
        for i, conv in enumerate(self.encoder):
            x = F.relu(conv(F.max_pool2d(x, 2) if i in (2, 4, 6) else x))
        scores = F.pixel_shuffle(self.score[1](F.relu(self.score[0](x))).softmax(1)[:, :-1], CELL)[:, 0]
        masked = chosen(scores, detection_threshold)
        index, counts = strongest(masked, max_keypoints)
        width = scores.shape[2]
        y = index // width
        keypoints = torch.stack([index - y * width, y], -1).to(scores.dtype)
        cells = F.normalize(self.describe[1](F.relu(self.describe[0](x))), dim=1)
        return keypoints, masked.flatten(1).gather(1, index), sample(cells, keypoints), counts


def _conv(state: reference.State, name: str) -> nn.Conv2d:
    weight = state[f"{name}.weight"]
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], padding=weight.shape[2] // 2)
    conv.weight, conv.bias = nn.Parameter(weight), nn.Parameter(state[f"{name}.bias"])
    return conv


def at_least_a_cell(x: Tensor) -> Tensor:
    """(B, C, H, W) with zeros to the right and below, where a side is shorter than a cell."""
    height, width = x.shape[2:]
    return F.pad(x, (0, torch.sym_max(CELL - width, 0), 0, torch.sym_max(CELL - height, 0)))


def chosen(scores: Tensor, threshold: Tensor | float) -> Tensor:
    """The scores (B, H, W) of keypoints, 0 elsewhere."""
    height, width = scores.shape[1:]
    inner = maxima(scores, RADIUS)[:, BORDER : height - BORDER, BORDER : width - BORDER]
    return F.pad(torch.where(inner > threshold, inner, 0.0), (BORDER, BORDER, BORDER, BORDER))


def sample(cells: Tensor, keypoints: Tensor) -> Tensor:
    """Descriptors (B, K, D), of unit length, at keypoints (B, K, 2) in pixels, from those of cells (B, D, H, W).

    The first cell's centre is at 3.5 pixels. The last one's should be at 8 W - 4.5, but is taken to be 3.5 pixels
    further, as published.
    """
    size = torch.tensor([cells.shape[3], cells.shape[2]])
    unit = (keypoints - (CELL - 1) / 2) / (size * CELL - (CELL + 1) / 2) * 2 - 1
    found = F.grid_sample(cells, unit[:, None], mode="bilinear", align_corners=True)[:, :, 0]
    return F.normalize(found, dim=1).transpose(1, 2)
