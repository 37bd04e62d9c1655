"""The networks as their papers write them, one image or one pair at a time: what every export is compared with.

Slow and plain on purpose, and sharing no code with the modules that are exported. The test suite compares these
functions with the published packages (kornia's DISK, LightGlue).
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

State = Mapping[str, Tensor]
Features = tuple[Tensor, Tensor, Tensor]
"""Keypoints (N, 2) in pixels, scores (N,), descriptors (N, D)."""


def disk(state: State, image: Tensor, max_keypoints: int) -> Features:
    """Return DISK features of image (3, H, W) RGB in 0..1, best first: keypoints (N, 2), scores (N,), (N, 128)."""
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

    patches = F.unfold(heat[None, None], 5)[0]  # every 5 x 5 window inside the image, its centre in row 12
    others = torch.cat([patches[:12], patches[13:]]).amax(0)
    inner = F.pad((patches[12] > others).unflatten(0, (height - 4, width - 4)), (2, 2, 2, 2))
    ys, xs = torch.nonzero(inner & (heat > 0), as_tuple=True)
    order = heat[ys, xs].argsort(descending=True, stable=True)[:max_keypoints]
    ys, xs = ys[order], xs[order]
    return torch.stack([xs, ys], 1).float(), heat[ys, xs], F.normalize(descriptors[:, ys, xs].T, dim=1)


def _dense(state: State, name: str, x: Tensor) -> Tensor:
    return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def lightglue(
    state: State, keypoints: tuple[Tensor, Tensor], descriptors: tuple[Tensor, Tensor], sizes: tuple[Tensor, Tensor]
) -> list[tuple[Tensor, Tensor]]:
    """Return what each of the nine layers makes of one pair: x (M, 256) and y (N, 256).

    keypoints (N, 2), descriptors (N, D) and sizes (2,), (width, height), of both images.
    """

    def feed_forward(x: Tensor, message: Tensor, block: str) -> Tensor:
        hidden = _dense(state, f"{block}.ffn.0", torch.cat([x, message], 1))
        hidden = F.layer_norm(hidden, hidden.shape[1:], state[f"{block}.ffn.1.weight"], state[f"{block}.ffn.1.bias"])
        return x + _dense(state, f"{block}.ffn.3", F.gelu(hidden))

    def heads(x: Tensor) -> Tensor:
        return x.unflatten(1, (4, -1)).transpose(0, 1)

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        weights = (query @ key.transpose(1, 2) / query.shape[2] ** 0.5).softmax(2)
        return (weights @ value).transpose(0, 1).flatten(1)

    def rotate(x: Tensor, phase: Tensor) -> Tensor:
        turned = torch.view_as_complex(x.unflatten(2, (-1, 2)).contiguous()) * torch.exp(1j * phase)
        return torch.view_as_real(turned).flatten(2)

    def self_attention(x: Tensor, phase: Tensor, block: str) -> Tensor:
        query, key, value = _dense(state, f"{block}.Wqkv", x).unflatten(1, (4, -1, 3)).permute(3, 1, 0, 2)
        message = attend(rotate(query, phase), rotate(key, phase), value)
        return feed_forward(x, _dense(state, f"{block}.out_proj", message), block)

    def cross_attention(x: Tensor, y: Tensor, block: str) -> Tensor:
        query, key = heads(_dense(state, f"{block}.to_qk", x)), heads(_dense(state, f"{block}.to_qk", y))
        message = attend(query, key, heads(_dense(state, f"{block}.to_v", y)))
        return feed_forward(x, _dense(state, f"{block}.to_out", message), block)

    phases = [(k - s / 2) / (s.max() / 2) @ state["posenc.Wr.weight"].T for k, s in zip(keypoints, sizes, strict=True)]
    x, y = (_dense(state, "input_proj", d) for d in descriptors)
    made = []
    for i in range(9):
        x, y = self_attention(x, phases[0], f"self_attn.{i}"), self_attention(y, phases[1], f"self_attn.{i}")
        x, y = cross_attention(x, y, f"cross_attn.{i}"), cross_attention(y, x, f"cross_attn.{i}")
        made.append((x, y))
    return made


def confidence(state: State, x: Tensor, layer: int) -> Tensor:
    """Return how sure each point of x (N, 256) is of its match after a layer but the last: (N,) in 0..1."""
    return _dense(state, f"token_confidence.{layer}.token.0", x)[:, 0].sigmoid()


def matchability(state: State, x: Tensor, layer: int) -> Tensor:
    """Return how likely each point of x (N, 256) has a match, after a layer: (N,) in 0..1."""
    return _dense(state, f"log_assignment.{layer}.matchability", x)[:, 0].sigmoid()


def assignment(state: State, x: Tensor, y: Tensor, layer: int) -> Tensor:
    """Return the assignment probabilities (M, N) of x (M, 256) and y (N, 256) after a layer."""
    name = f"log_assignment.{layer}.final_proj"
    similarity = _dense(state, name, x) @ _dense(state, name, y).T / x.shape[1] ** 0.5
    both = similarity.softmax(1) * similarity.softmax(0)
    return both * matchability(state, x, layer)[:, None] * matchability(state, y, layer)


def mutual_matches(assignment: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Return matches0 (M,), -1 for none, and scores (M,): mutual best entries of (M, N) above the threshold."""
    best, index = assignment.max(1)
    mutual = assignment.argmax(0)[index] == torch.arange(len(index))
    found = mutual & (best > threshold)
    return torch.where(found, index, -1), torch.where(found, best, 0.0)
