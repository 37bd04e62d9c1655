"""DISK, SuperPoint, ALIKED and XFeat for one image: the references of the exported extractors.

They are as published, except that DISK's keypoints, published at whole pixels, move to the maximum of a quadratic fit.

Each function takes a state dict with the names of the published weights, an image (3, H, W), RGB in 0..1, and the
maximum number of keypoints. It returns keypoints (N, 2) in pixels, top-left pixel centre (0, 0), best first, scores
(N,), and descriptors (N, D) of unit length.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from lgbatch.export.reference.common import Features, State, quadratic_maxima, sample_bilinear


def disk(state: State, image: Tensor, max_keypoints: int) -> Features:
    """Extract DISK features with descriptors (N, 128)."""
    height, width = image.shape[1:]
    x = F.pad(image[None], (0, -width % 16, 0, -height % 16))

    def block(x: Tensor, name: str, gate: bool = True) -> Tensor:
        if gate:
            x = F.prelu(F.instance_norm(x), state[f"unet.{name}.1.weight"])
        return F.conv2d(x, state[f"unet.{name}.3.weight"], state[f"unet.{name}.3.bias"], padding=2)

    maps = [block(x, "path_down.0.1", gate=False)]
    for i in range(1, 5):
        maps.append(block(F.avg_pool2d(maps[-1], 2), f"path_down.{i}.1"))
    x = maps.pop()
    for i in range(4):
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        x = block(torch.cat([x, maps.pop()], 1), f"path_up.{i}.conv")
    descriptors, heat = x[0, :128, :height, :width], x[0, 128, :height, :width]

    patches = F.unfold(heat[None, None], 5)[0]  # all 5 x 5 windows inside the image, with the centre in row 12
    neighbours = torch.cat([patches[:12], patches[13:]]).amax(0)
    is_maximum = F.pad((patches[12] > neighbours).unflatten(0, (height - 4, width - 4)), (2, 2, 2, 2))
    ys, xs = torch.nonzero(is_maximum & (heat > 0), as_tuple=True)
    order = heat[ys, xs].argsort(descending=True, stable=True)[:max_keypoints]
    ys, xs = ys[order], xs[order]
    return quadratic_maxima(heat, xs, ys), heat[ys, xs], F.normalize(descriptors[:, ys, xs].T, dim=1)


def superpoint(state: State, image: Tensor, max_keypoints: int) -> Features:
    """Extract SuperPoint features with descriptors (N, 256).

    Selection as in LightGlue's SuperPoint: non-maximum suppression with a radius of 4 pixels in three rounds. Each
    round adds maxima among the pixels outside the windows of those found before.
    """

    def conv(x: Tensor, name: str) -> Tensor:
        weight = state[f"{name}.weight"]
        return F.conv2d(x, weight, state[f"{name}.bias"], padding=len(weight[0, 0]) // 2)

    x = (0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2])[None, None]
    for block in (1, 2, 3, 4):
        if block > 1:
            x = F.max_pool2d(x, 2)
        x = conv(conv(x, f"conv{block}a").relu(), f"conv{block}b").relu()
    cells = conv(conv(x, "convPa").relu(), "convPb")[0].softmax(0)[:64]
    rows, columns = cells.shape[1:]
    scores = cells.reshape(8, 8, rows, columns).permute(2, 0, 3, 1).reshape(8 * rows, 8 * columns)

    def window_max(x: Tensor) -> Tensor:
        return F.pad(x, (4, 4, 4, 4)).unfold(0, 9, 1).unfold(1, 9, 1).amax((2, 3))

    is_maximum = scores == window_max(scores)
    for _ in range(2):
        suppressed = window_max(is_maximum.float()) > 0
        rest = scores.masked_fill(suppressed, 0)
        is_maximum |= (rest == window_max(rest)) & ~suppressed
    ys, xs = torch.nonzero(is_maximum & (scores > 0.0005), as_tuple=True)
    inside = (ys >= 4) & (ys < 8 * rows - 4) & (xs >= 4) & (xs < 8 * columns - 4)
    ys, xs = ys[inside], xs[inside]
    order = scores[ys, xs].argsort(descending=True, stable=True)[:max_keypoints]
    keypoints = torch.stack([xs, ys], 1)[order].float()

    dense = F.normalize(conv(conv(x, "convDa").relu(), "convDb")[0], dim=0)
    # As published: coordinate 0 is the centre of the first cell, but 1 is 3.5 pixels beyond that of the last one.
    last = torch.tensor([columns, rows])
    points = (keypoints - 3.5) / (8 * last - 4.5) * (last - 1)
    return keypoints, scores[ys, xs][order], F.normalize(sample_bilinear(dense, points).T, dim=1)


def aliked(state: State, image: Tensor, max_keypoints: int) -> Features:
    """Extract ALIKED features with descriptors (N, D), D the variant's."""
    height, width = image.shape[1:]
    down, right = -height % 32, -width % 32
    top, left = down // 2, right // 2

    def conv(x: Tensor, name: str) -> Tensor:
        weight = state[f"{name}.weight"]
        return F.conv2d(x, weight, state.get(f"{name}.bias"), padding=weight.shape[2] // 2)

    def normalized(x: Tensor, block: str, i: int) -> Tensor:
        name, norm = f"{block}.conv{i}", f"{block}.bn{i}"
        if f"{name}.weight" in state:
            x = conv(x, name)
        else:
            limit = max(x.shape[2:]) / 4
            offset = conv(x, f"{name}.offset_conv").clamp(-limit, limit)
            x = deformable_conv(x, offset, state[f"{name}.regular_conv.weight"])
        mean, variance = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
        return F.batch_norm(x, mean, variance, state[f"{norm}.weight"], state[f"{norm}.bias"])

    x = F.pad(image[None], (left, right - left, top, down - top), mode="replicate")
    size = x.shape[2:]
    maps = []
    for i, pool in enumerate((1, 2, 4, 4), start=1):
        x = F.avg_pool2d(x, pool)
        y = normalized(F.selu(normalized(x, f"block{i}", 1)), f"block{i}", 2)
        x = F.selu(y + conv(x, f"block{i}.downsample") if i > 1 else y)
        maps.append(F.interpolate(F.selu(conv(x, f"conv{i}")), size, mode="bilinear", align_corners=True))
    x = heat = torch.cat(maps, 1)
    for layer in (0, 2, 4, 6):
        heat = conv(F.selu(heat) if layer else heat, f"score_head.{layer}")
    heat = heat[0, 0, top : top + height, left : left + width].sigmoid()
    dense = F.normalize(x[0], dim=0)[:, top : top + height, left : left + width]
    keypoints, scores = _aliked_keypoints(heat, max_keypoints)
    return keypoints, scores, _aliked_descriptors(state, dense, keypoints)


def deformable_conv(x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    """Return the 3 x 3 deformable convolution of x (1, C, H, W), zeros outside, as torchvision defines it.

    offset (1, 18, H, W): y, then x, of the displacement of each of the nine taps, in pixels. weight (O, C, 3, 3).
    """
    height, width = x.shape[2:]
    taps = []
    for tap, (down, right) in enumerate(offset[0].unflatten(0, (9, 2))):
        y = torch.arange(height)[:, None] + tap // 3 - 1 + down
        column = torch.arange(width) + tap % 3 - 1 + right
        grid = torch.stack([(2 * column + 1) / width - 1, (2 * y + 1) / height - 1], -1)
        sampled = F.grid_sample(x, grid[None], align_corners=False)
        taps.append(torch.einsum("oi,bihw->bohw", weight[:, :, tap // 3, tap % 3], sampled))
    return torch.stack(taps).sum(0)


def _aliked_keypoints(scores: Tensor, max_keypoints: int) -> tuple[Tensor, Tensor]:
    """Detect keypoints (N, 2) in scores (H, W), refine them, and interpolate their scores (N,)."""

    def window_max(x: Tensor) -> Tensor:
        return F.max_pool2d(x[None], 5, 1, 2)[0]

    is_maximum = scores == window_max(scores)
    for _ in range(2):
        suppressed = window_max(is_maximum.float()) > 0
        rest = scores * ~suppressed
        is_maximum |= (rest == window_max(rest)) & ~suppressed
    maxima = (scores * is_maximum)[2:-2, 2:-2]
    above = maxima > 0.2
    ys, xs = torch.nonzero(above if above.any() else maxima > scores.mean(), as_tuple=True)
    order = maxima[ys, xs].argsort(descending=True, stable=True)[:max_keypoints]
    ys, xs = ys[order] + 2, xs[order] + 2
    step = torch.arange(-2, 3)
    windows = scores[ys[:, None, None] + step[:, None], xs[:, None, None] + step]
    weights = (windows.flatten(1) / 0.1).softmax(1).unflatten(1, (5, 5))
    x, y = xs + (weights.sum(1) * step).sum(1), ys + (weights.sum(2) * step).sum(1)
    keypoints = torch.stack([x, y], 1)
    return keypoints, sample_bilinear(scores[None], keypoints)[0]


def _aliked_descriptors(state: State, dense: Tensor, keypoints: Tensor) -> Tensor:
    """Return descriptors (N, D) of keypoints (N, 2) in pixels, from the dense feature map (C, H, W)."""
    height, width = dense.shape[1:]
    limit = max(height, width) / 4
    name = "desc_head.offset_conv"
    last = torch.tensor([width - 1, height - 1])
    # The published code converts to -1..1 and back before it truncates.
    corners = ((keypoints / last * 2 - 1) / 2 + 0.5).mul(last).long() - 1
    x, y = corners.clamp(min=0).minimum(last - 3).T
    patches = dense.unfold(1, 3, 1).unfold(2, 3, 1)[:, y, x].transpose(0, 1)
    offset = F.selu(F.conv2d(patches, state[f"{name}.0.weight"], state[f"{name}.0.bias"]))
    offset = F.conv2d(offset, state[f"{name}.2.weight"], state[f"{name}.2.bias"]).clamp(-limit, limit)
    points = keypoints[:, None] + offset[:, :, 0, 0].unflatten(1, (2, -1)).transpose(1, 2)
    samples = sample_bilinear(dense, points.flatten(0, 1)).T.unflatten(0, points.shape[:2])
    features = F.selu(samples @ state["desc_head.sf_conv.weight"][:, :, 0, 0].T)
    return F.normalize(torch.einsum("npc,pcd->nd", features, state["desc_head.agg_weights"]), dim=1)


def xfeat(state: State, image: Tensor, max_keypoints: int) -> Features:
    """Extract XFeat features with descriptors (N, 64)."""

    def layer(x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = state[f"{name}.layer.0.weight"]
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[2] // 2)
        mean, variance = state[f"{name}.layer.1.running_mean"], state[f"{name}.layer.1.running_var"]
        return F.batch_norm(x, mean, variance).relu()

    def head(x: Tensor, name: str, layers: int) -> Tensor:
        for i in range(layers):
            x = layer(x, f"{name}.{i}")
        return F.conv2d(x, state[f"{name}.{layers}.weight"], state[f"{name}.{layers}.bias"])

    original = torch.tensor(image.shape[1:])
    size = (original // 32).clamp(min=1) * 32
    height, width = size.tolist()
    grey = F.interpolate(image[None], (height, width), mode="bilinear", align_corners=False).mean(1, keepdim=True)
    x = grey = F.instance_norm(grey)
    maps = []
    for block, strides in enumerate(((1, 2, 1, 2), (1, 1), (2, 1, 1), (2, 1, 1), (2, 1, 1, 1)), start=1):
        for i, stride in enumerate(strides):
            x = layer(x, f"block{block}.{i}", stride)
        if block == 1:
            x = x + F.conv2d(F.avg_pool2d(grey, 4), state["skip1.1.weight"], state["skip1.1.bias"])
        maps.append(x)
    size8 = maps[2].shape[2:]
    x = maps[2] + sum(F.interpolate(deeper, size8, mode="bilinear", align_corners=False) for deeper in maps[3:])
    dense = head(x, "block_fusion", 2)
    reliability = head(dense, "heatmap_head", 2).sigmoid()
    cells = F.unfold(grey, 8, stride=8).unflatten(2, size8)
    heat = F.fold(head(cells, "keypoint_head", 3).softmax(1)[:, :64].flatten(2), (height, width), 8, stride=8)

    peaks = (heat == F.max_pool2d(heat, 5, 1, 2)) & (heat > 0.05)
    ys, xs = torch.nonzero(peaks[0, 0], as_tuple=True)
    keypoints = torch.stack([xs, ys], 1)
    # As published: normalised with aligned corners, sampled without.
    grid = (keypoints / torch.tensor([width - 1, height - 1]) * 2 - 1)[None, None]
    probability, reliable = (
        F.grid_sample(x, grid, mode, align_corners=False)[0, 0, 0]
        for x, mode in ((heat, "nearest"), (reliability, "bilinear"))
    )
    scores = probability * reliable * (keypoints != 0).any(1)
    order = scores.argsort(descending=True, stable=True)[:max_keypoints]
    order = order[scores[order] > 0]
    dense = F.normalize(dense, dim=1)
    descriptors = F.grid_sample(dense, grid[:, :, order], "bicubic", align_corners=False)[0, :, 0].T
    return keypoints[order] * (original / size).flip(0), scores[order], F.normalize(descriptors, dim=1)
