"""DISK: local features learned with policy gradient (Tyszkiewicz, Fua and Trulls, NeurIPS 2020), as an ONNX extractor.

The network is the published U-Net with its `depth` weights. Two rearrangements make it about five times cheaper and
are exact up to rounding:

- The published last convolution computes 128 descriptor channels for every pixel, four fifths of all the work, and only
  those of the keypoints are used. Here it computes the heatmap only; the descriptors of the selected keypoints are
  computed from the 5 x 5 windows around them.
- Instance normalisation treats each channel separately, so the upsampled and the skipped channels are not concatenated.

Keypoint selection follows kornia's DISK: a keypoint's score exceeds all others in its 5 x 5 window, which must lie
inside the image. The best `max_keypoints` are kept, ties in raster order. Other than published, each then moves to the
maximum of a quadratic fit to the heatmap. Its descriptor stays that of the whole pixel.
"""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lgbatch.export import reference
from lgbatch.export.networks.detect import neighbours, quadratic_offsets
from lgbatch.export.onnx_graph import Graph, extractor_graph

OPSET = 20
DESCRIPTOR_DIM = 128
KERNEL = 5
STRIDE = 16
"""The U-Net halves the image four times: sides are padded with zeros to a multiple of this."""
THRESHOLD = 0.0
"""Exclusive lower bound of the scores."""


def graph(state: reference.State, opset: int = OPSET) -> Graph:
    """Return the extractor's graph. Raises KeyError if the state dict belongs to another network."""
    return extractor_graph(network(state), opset)


def network(state: reference.State) -> nn.Module:
    """Return the extractor as a module that PyTorch can run. Raises KeyError as `graph`."""
    unet = Unet()
    unet.load(state)
    return DiskExtractor(unet)


class Gate(nn.Module):
    """Instance normalisation, then a parametric ReLU, on (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(channels)
        self.slope = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        return self.slope(self.norm(x))


class Down(nn.Module):
    """One step down: average pooling to half the size, gate, convolution."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.gate = Gate(inside)
        self.conv = nn.Conv2d(inside, outside, KERNEL, padding=KERNEL // 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inside, H, W) to (B, outside, H/2, W/2)."""
        return self.conv(self.gate(F.avg_pool2d(x, 2)))


class Up(nn.Module):
    """One step up: upsampling to twice the size, gates, convolution together with the skipped map of that size."""

    def __init__(self, low: int, skip: int, outside: int) -> None:
        super().__init__()
        self.low_gate, self.skip_gate = Gate(low), Gate(skip)
        self.conv = nn.Conv2d(low + skip, outside, KERNEL, padding=KERNEL // 2)

    def gated(self, low: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inputs of the convolution: the gated upsampled channels and the gated skipped channels."""
        low = F.interpolate(low, scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.low_gate(low), self.skip_gate(skip)

    def forward(self, low: Tensor, skip: Tensor) -> Tensor:
        """(B, low, H/2, W/2) and (B, skip, H, W) to (B, outside, H, W)."""
        return self.conv(torch.cat(self.gated(low, skip), 1))


class Unet(nn.Module):
    """DISK's network up to the inputs of its last block, which DiskExtractor evaluates."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, KERNEL, padding=KERNEL // 2)
        self.down = nn.ModuleList([Down(16, 32), Down(32, 64), Down(64, 64), Down(64, 64)])
        self.up = nn.ModuleList([Up(64, 64, 64), Up(64, 64, 64), Up(64, 32, 64)])
        self.last = Up(64, 16, DESCRIPTOR_DIM + 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Photos (B, 3, H, W), RGB in 0..1, H and W multiples of 16, to the inputs of `last`.

        These are a map of half the size (B, 64, H/2, W/2) and a full-size one (B, 16, H, W).
        """
        maps = [self.first(image)]
        for down in self.down:
            maps.append(down(maps[-1]))
        low = maps.pop()
        for up in self.up:
            low = up(low, maps.pop())
        return low, maps.pop()

    def load(self, state: reference.State) -> None:
        """Load the published state dict. Raises KeyError if it belongs to another network."""
        convolutions = {"first": "path_down.0.1.3"}
        blocks = [(f"down.{i}", f"path_down.{i + 1}.1", "gate.slope") for i in range(4)]
        blocks += [(f"up.{i}", f"path_up.{i}.conv", "") for i in range(3)] + [("last", "path_up.3.conv", "")]
        mapped = {}
        for ours, theirs, gate in blocks:
            convolutions[f"{ours}.conv"] = f"{theirs}.3"
            slope = state[f"unet.{theirs}.1.weight"]
            if gate:
                mapped[f"{ours}.{gate}.weight"] = slope
            else:
                mapped[f"{ours}.low_gate.slope.weight"] = slope[:64]
                mapped[f"{ours}.skip_gate.slope.weight"] = slope[64:]
        for ours, theirs in convolutions.items():
            for part in ("weight", "bias"):
                mapped[f"{ours}.{part}"] = state[f"unet.{theirs}.{part}"]
        self.load_state_dict(mapped)


def pad_to_stride(image: Tensor) -> Tensor:
    """Pad (B, C, H, W) with zeros at the bottom and right to multiples of STRIDE."""
    height, width = image.shape[-2:]
    return F.pad(image, (0, -width % STRIDE, 0, -height % STRIDE))


class DiskExtractor(nn.Module):
    """The exported network: photos to padded keypoints, scores and descriptors."""

    def __init__(self, unet: Unet) -> None:
        super().__init__()
        self.unet = unet
        weight, bias = (value.detach() for value in unet.last.conv.parameters())
        channels = weight.shape[1]
        # One 1 x 1 convolution for each of the 25 taps of the heatmap's kernel; `add_taps` then shifts and
        # adds the results. It scatters where a convolution gathers: hence the flip.
        taps = weight[-1].flip(1, 2).reshape(channels, KERNEL * KERNEL).T.reshape(-1, channels, 1, 1).contiguous()
        self.low_taps = nn.Parameter(taps[:, :64].contiguous())
        self.skip_taps = nn.Parameter(taps[:, 64:].contiguous())
        self.heat_bias = nn.Parameter(bias[-1])
        # Rows in the order of `gather_windows`: channel, then tap.
        self.projection = nn.Parameter(weight[:-1].reshape(DESCRIPTOR_DIM, -1).T.contiguous())
        self.bias = nn.Parameter(bias[:-1])

    def forward(
        self, image: Tensor, max_keypoints: Tensor, detection_threshold: Tensor | float = THRESHOLD
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Extract the local features of a batch of photos of one size.

        image: (B, 3, H, W) float32, RGB in 0..1. max_keypoints: () int64. detection_threshold: () float32, exclusive
        lower bound of the scores.
        Returns keypoints (B, K, 2) float32 in pixels of the input, top-left pixel centre (0, 0), best first; scores
        (B, K); descriptors (B, K, 128) of unit length; counts (B,) int64. Rows from an image's count on are padding.
        """
        height, width = image.shape[-2:]
        low, skip = self.unet.last.gated(*self.unet(pad_to_stride(image)))
        taps = F.conv2d(low, self.low_taps) + F.conv2d(skip, self.skip_taps)
        heat = (add_taps(taps) + self.heat_bias)[:, 0, :height, :width]
        scores, index, counts = select_keypoints(heat, max_keypoints, detection_threshold)
        y = index // width
        x = index - y * width
        windows = torch.cat([gather_windows(low, x, y), gather_windows(skip, x, y)], -1)
        descriptors = windows @ self.projection + self.bias
        keypoints = torch.stack([x, y], -1) + quadratic_offsets(neighbours(heat, index))
        return keypoints, scores, F.normalize(descriptors, dim=-1), counts


def add_taps(taps: Tensor) -> Tensor:
    """Shift each channel of taps (B, 25, H, W) by its place in a 5 x 5 window, and add them up: (B, 1, H, W).

    It is F.fold, in the same order of additions. ONNX Runtime has no CUDA kernel for Col2Im, as which fold is exported.
    """
    last = KERNEL - 1
    padded = F.pad(taps, (KERNEL // 2,) * 4)
    shifted = []
    for tap in range(KERNEL * KERNEL):
        y, x = last - tap // KERNEL, last - tap % KERNEL
        shifted.append(padded[:, tap : tap + 1, y : y - last or None, x : x - last or None])
    return functools.reduce(torch.add, shifted)


def select_keypoints(heat: Tensor, max_keypoints: Tensor, threshold: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
    """Select the best strict local maxima of heat (B, H, W): scores (B, K), raster indices (B, K), counts (B,)."""
    height, width = heat.shape[1:]
    neighbours = max_of_neighbours(heat)
    inner = heat[:, 2 : height - 2, 2 : width - 2]
    keep = (inner > neighbours) & (inner > threshold)
    inner = torch.where(keep, inner, torch.zeros_like(inner))
    masked = F.pad(inner, (2, 2, 2, 2)).flatten(1)
    limit = torch.minimum(max_keypoints, torch.tensor(height * width))
    k = int(limit.item())
    torch._check(k >= 0)
    torch._check(k <= height * width)
    scores, index = torch.topk(masked, k, dim=1)
    return scores, index, (scores > 0).sum(1)


def max_of_neighbours(heat: Tensor) -> Tensor:
    """Return the maximum of the 24 neighbours of each inner pixel: (B, H, W) to (B, H - 4, W - 4)."""
    x = heat[:, None]
    rows = F.max_pool2d(x, (2, 5), 1)  # (H - 1, W - 4): row y holds rows y and y + 1
    columns = F.max_pool2d(x[:, :, 2:-2], (1, 2), 1)
    above, below = rows[:, :, :-3], rows[:, :, 3:]
    left, right = columns[..., :-3], columns[..., 3:]
    return torch.maximum(torch.maximum(above, below), torch.maximum(left, right))[:, 0]


def gather_windows(features: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Gather 5 x 5 windows of features (B, C, H, W) around x, y (B, K), zeros outside: (B, K, C * 25)."""
    channels, height, width = features.shape[1:]
    step = torch.arange(-(KERNEL // 2), KERNEL // 2 + 1)
    rows = y[..., None, None] + step[:, None]
    columns = x[..., None, None] + step
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    index = (rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)).flatten(1)
    picked = features.flatten(2).gather(2, index[:, None].expand(-1, channels, -1))
    picked = picked * inside.flatten(1)[:, None].to(picked.dtype)
    return picked.unflatten(2, (x.shape[1], KERNEL * KERNEL)).transpose(1, 2).flatten(2)
