"""LightGlue (Lindenberger, Sarlin and Pollefeys, ICCV 2023) as the paper describes it, for one pair of images."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lgbatch.export.reference.common import State, linear


def lightglue(
    state: State, keypoints: tuple[Tensor, Tensor], descriptors: tuple[Tensor, Tensor], sizes: tuple[Tensor, Tensor]
) -> list[tuple[Tensor, Tensor]]:
    """Return the embeddings of one pair after each layer: x (M, W) of the first image and y (N, W) of the second.

    For both images: keypoints (N, 2) in pixels, or (N, 4) with scales and orientations for SIFT, descriptors (N, C),
    and sizes (2,), width and height in pixels.
    """
    frequencies = state["posenc.Wr.weight"]
    head_dim = 2 * len(frequencies)

    def feed_forward(x: Tensor, message: Tensor, block: str) -> Tensor:
        hidden = linear(state, f"{block}.ffn.0", torch.cat([x, message], 1))
        hidden = F.layer_norm(hidden, hidden.shape[1:], state[f"{block}.ffn.1.weight"], state[f"{block}.ffn.1.bias"])
        return x + linear(state, f"{block}.ffn.3", F.gelu(hidden))

    def heads(x: Tensor) -> Tensor:
        return x.unflatten(1, (-1, head_dim)).transpose(0, 1)

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        weights = (query @ key.transpose(1, 2) / query.shape[2] ** 0.5).softmax(2)
        return (weights @ value).transpose(0, 1).flatten(1)

    def rotate(x: Tensor, phase: Tensor) -> Tensor:
        rotated = torch.view_as_complex(x.unflatten(2, (-1, 2)).contiguous()) * torch.exp(1j * phase)
        return torch.view_as_real(rotated).flatten(2)

    def self_attention(x: Tensor, phase: Tensor, block: str) -> Tensor:
        query, key, value = linear(state, f"{block}.Wqkv", x).unflatten(1, (-1, head_dim, 3)).permute(3, 1, 0, 2)
        message = attend(rotate(query, phase), rotate(key, phase), value)
        return feed_forward(x, linear(state, f"{block}.out_proj", message), block)

    def cross_attention(x: Tensor, y: Tensor, block: str) -> Tensor:
        query, key = heads(linear(state, f"{block}.to_qk", x)), heads(linear(state, f"{block}.to_qk", y))
        message = attend(query, key, heads(linear(state, f"{block}.to_v", y)))
        return feed_forward(x, linear(state, f"{block}.to_out", message), block)

    normalized = [
        torch.cat([(k[:, :2] - s / 2) / (s.max() / 2), k[:, 2:]], 1) for k, s in zip(keypoints, sizes, strict=True)
    ]
    phases = [p @ frequencies.T for p in normalized]
    x, y = (linear(state, "input_proj", d) if "input_proj.weight" in state else d for d in descriptors)
    layers = []
    for i in range(sum(name.endswith(".final_proj.weight") for name in state)):
        x, y = self_attention(x, phases[0], f"self_attn.{i}"), self_attention(y, phases[1], f"self_attn.{i}")
        x, y = cross_attention(x, y, f"cross_attn.{i}"), cross_attention(y, x, f"cross_attn.{i}")
        layers.append((x, y))
    return layers


def confidence(state: State, x: Tensor, layer: int) -> Tensor:
    """Return the confidence (N,) in 0..1 of embeddings x (N, W) after a layer; the last layer has none."""
    return linear(state, f"token_confidence.{layer}.token.0", x)[:, 0].sigmoid()


def matchability(state: State, x: Tensor, layer: int) -> Tensor:
    """Return the matchability (N,) in 0..1 of embeddings x (N, W) after a layer."""
    return linear(state, f"log_assignment.{layer}.matchability", x)[:, 0].sigmoid()


def assignment(state: State, x: Tensor, y: Tensor, layer: int) -> Tensor:
    """Return the assignment probabilities (M, N) of embeddings x (M, W) and y (N, W) after a layer."""
    name = f"log_assignment.{layer}.final_proj"
    similarity = linear(state, name, x) @ linear(state, name, y).T / x.shape[1] ** 0.5
    both = similarity.softmax(1) * similarity.softmax(0)
    return both * matchability(state, x, layer)[:, None] * matchability(state, y, layer)


def mutual_matches(assignment: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Return the mutual best entries of an assignment (M, N) above the threshold.

    Returns matches0 (M,) int64, -1 for none, and scores (M,), 0 for none.
    """
    best, index = assignment.max(1)
    mutual = assignment.argmax(0)[index] == torch.arange(len(index))
    matched = mutual & (best > threshold)
    return torch.where(matched, index, -1), torch.where(matched, best, 0.0)
