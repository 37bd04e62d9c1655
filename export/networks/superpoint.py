"""SuperPoint (DeTone, Malisiewicz and Rabinovich, CVPR Workshops 2018) as an ONNX extractor.

The network predicts, for each cell of 8 x 8 pixels, the probability that each pixel is a keypoint, the probability
that none is, and a descriptor. Selection follows LightGlue's SuperPoint: local maxima in windows of 9 x 9, found in
three rounds, with scores above 0.0005, at least 4 pixels from the edges of the area of complete cells. Pixels of
incomplete cells at the right and bottom enter the network but are never selected.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lgbatch.export import reference
from lgbatch.export.networks.detect import local_maxima, select_top_k
from lgbatch.export.onnx_graph import Graph, extractor_graph

OPSET = 20
CELL = 8
"""Side of a cell in pixels."""
RADIUS = 4
"""Keypoints are local maxima in windows of 9 x 9."""
BORDER = 4
"""Minimum distance of keypoints from the edges, in pixels."""
THRESHOLD = 0.0005
"""Exclusive lower bound of the scores."""
GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the grey photo."""


def graph(state: reference.State, opset: int = OPSET) -> Graph:
    """Return the extractor's graph. Raises KeyError if the state dict belongs to another network."""
    return extractor_graph(SuperPointExtractor(state), opset)


class SuperPointExtractor(nn.Module):
    """The exported network: photos to padded keypoints, scores and descriptors."""

    def __init__(self, state: reference.State) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(_conv(state, f"conv{i}{part}") for i in (1, 2, 3, 4) for part in "ab")
        self.score, self.describe = (nn.ModuleList(_conv(state, f"conv{head}{part}") for part in "ab") for head in "PD")
        self.grey = nn.Parameter(torch.tensor(GREY)[:, None, None])

    def forward(
        self, image: Tensor, max_keypoints: Tensor, detection_threshold: Tensor | float = THRESHOLD
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Extract the local features of a batch of photos of one size.

        image: (B, 3, H, W) float32, RGB in 0..1. max_keypoints: () int64. detection_threshold: () float32, exclusive
        lower bound of the scores.
        Returns keypoints (B, K, 2) float32 in pixels of the input, top-left pixel centre (0, 0), best first; scores
        (B, K); descriptors (B, K, 256) of unit length; counts (B,) int64. Rows from an image's count on are padding.
        """
        x = pad_to_cell((image * self.grey).sum(1, keepdim=True))
        for i, conv in enumerate(self.encoder):
            x = F.relu(conv(F.max_pool2d(x, 2) if i in (2, 4, 6) else x))
        scores = F.pixel_shuffle(self.score[1](F.relu(self.score[0](x))).softmax(1)[:, :-1], CELL)[:, 0]
        masked = keypoint_scores(scores, detection_threshold)
        index, counts = select_top_k(masked, max_keypoints)
        width = scores.shape[2]
        y = index // width
        keypoints = torch.stack([index - y * width, y], -1).to(scores.dtype)
        cells = F.normalize(self.describe[1](F.relu(self.describe[0](x))), dim=1)
        return keypoints, masked.flatten(1).gather(1, index), sample_descriptors(cells, keypoints), counts


def _conv(state: reference.State, name: str) -> nn.Conv2d:
    weight = state[f"{name}.weight"]
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], padding=weight.shape[2] // 2)
    conv.weight, conv.bias = nn.Parameter(weight), nn.Parameter(state[f"{name}.bias"])
    return conv


def pad_to_cell(x: Tensor) -> Tensor:
    """Pad (B, C, H, W) with zeros at the right and bottom if a side is shorter than a cell."""
    height, width = x.shape[2:]
    return F.pad(x, (0, torch.sym_max(CELL - width, 0), 0, torch.sym_max(CELL - height, 0)))


def keypoint_scores(scores: Tensor, threshold: Tensor | float) -> Tensor:
    """Return the scores (B, H, W) at keypoints and 0 elsewhere."""
    height, width = scores.shape[1:]
    inner = local_maxima(scores, RADIUS)[:, BORDER : height - BORDER, BORDER : width - BORDER]
    return F.pad(torch.where(inner > threshold, inner, 0.0), (BORDER, BORDER, BORDER, BORDER))


def sample_descriptors(cells: Tensor, keypoints: Tensor) -> Tensor:
    """Sample the descriptors of cells (B, C, H, W) at keypoints (B, K, 2) in pixels: (B, K, C), of unit length.

    The centre of the first cell is at 3.5 pixels. That of the last one is at 8 W - 4.5, but the published network
    places it 3.5 pixels further, and so does this function.
    """
    size = torch.tensor([cells.shape[3], cells.shape[2]])
    unit = (keypoints - (CELL - 1) / 2) / (size * CELL - (CELL + 1) / 2) * 2 - 1
    sampled = F.grid_sample(cells, unit[:, None], mode="bilinear", align_corners=True)[:, :, 0]
    return F.normalize(sampled, dim=1).transpose(1, 2)
