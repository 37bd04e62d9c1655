"""The blocks of LightGlue (Lindenberger, Sarlin and Pollefeys, ICCV 2023) for padded batches: attention, feed-forward.

The blocks compute the published network. Exact algebra is folded into their weights:

- The output projection of the attention is folded into the first matrix of the feed-forward network that follows:
  W1 [x; Wo c + bo] + b1 = [W1x, W1m Wo] [x; c] + (b1 + W1m bo).
- The rows of the query and key projections are permuted, so that the rotary embedding rotates two contiguous halves of
  each head.

Lengths mask the padding: the standard operator Attention (opset 24) takes the number of valid keys of each item. The
result does not depend on padded keys, to the last bit, and no N x N mask is needed. Rows of padded queries hold
arbitrary numbers; the assignment head ignores them.

Shapes: B is the batch size, M and N the padded numbers of keypoints, W the embedding dimension, D the head dimension.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.onnx.ops import rotary_embedding, symbolic

from lgbatch.export import reference
from lgbatch.runtime.registry import Shape

OPSET = 24
"""The first opset whose Attention takes lengths. Graphs of lower opsets use `plain_attention` and `plain_rotary`."""
FAR = -1e4
"""Added to the logits of padding: the exponential becomes zero."""


def shape_of(state: reference.State) -> Shape:
    """Return the dimensions of the LightGlue with these weights. Raises KeyError if they are another network's."""
    width, head_dim = len(state["self_attn.0.out_proj.weight"]), 2 * len(state["posenc.Wr.weight"])
    layers = sum(name.endswith(".final_proj.weight") for name in state)
    return Shape(layers=layers, width=width, heads=width // head_dim)


def descriptor_dim(state: reference.State) -> int:
    """Return the descriptor dimension that the LightGlue with these weights takes."""
    return state["input_proj.weight"].shape[1] if "input_proj.weight" in state else shape_of(state).width


def attention(query: Tensor, key: Tensor, value: Tensor, lengths: Tensor, heads: int) -> Tensor:
    """Softmax attention over the first `lengths` (B,) int64 keys, as the ONNX operator Attention.

    query (B, M, W), key (B, N, W) and value (B, N, W) to (B, M, W).
    """
    return symbolic(
        "Attention",
        (query, key, value, None, None, None, lengths),
        {"q_num_heads": heads, "kv_num_heads": heads},
        dtype=query.dtype,
        shape=query.shape,
        version=OPSET,
    )


def plain_attention(query: Tensor, key: Tensor, value: Tensor, lengths: Tensor, heads: int) -> Tensor:
    """Softmax attention as `attention`, in operators of all opsets."""
    head_dim = query.shape[-1] // heads
    padding = torch.where(torch.arange(key.shape[1])[None] < lengths[:, None], 0.0, FAR)
    q, k, v = (x.unflatten(-1, (heads, head_dim)).transpose(1, 2) for x in (query * head_dim**-0.5, key, value))
    weights = (q @ k.transpose(2, 3) + padding[:, None, None]).softmax(-1)
    return (weights @ v).transpose(1, 2).flatten(2)


def rotary(x: Tensor, cosines: Tensor, sines: Tensor, heads: int) -> Tensor:
    """Rotary embedding of x (B, N, W), as the ONNX operator RotaryEmbedding.

    Each pair of one number from the first half of a head and one from the second is rotated by an angle, given by its
    cosine and sine (B, N, D / 2).
    """
    return rotary_embedding(x, cosines, sines, num_heads=heads)


def plain_rotary(x: Tensor, cosines: Tensor, sines: Tensor, heads: int) -> Tensor:
    """Rotary embedding as `rotary`, in operators of all opsets."""
    first, second = x.unflatten(-1, (heads, 2, -1)).unbind(-2)
    cosine, sine = cosines[:, :, None], sines[:, :, None]
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], -1).flatten(2)


@dataclass(frozen=True)
class Operators:
    """The implementations of the two parts of a layer that have ONNX operators of their own."""

    attend: Callable[[Tensor, Tensor, Tensor, Tensor, int], Tensor] = attention
    rotate: Callable[[Tensor, Tensor, Tensor, int], Tensor] = rotary


def operators(opset: int) -> Operators:
    """Return the implementations for an opset."""
    return Operators() if opset >= OPSET else Operators(plain_attention, plain_rotary)


class Dense(nn.Module):
    """x W + b. The weight is stored as (in, out), as it is multiplied, and keeps its name in the ONNX file."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight.T.contiguous()), nn.Parameter(bias.contiguous())

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        return x @ self.weight + self.bias


class FeedForward(nn.Module):
    """x + W2 gelu(norm(W1 [x; context])), with the output projection of the attention folded into W1."""

    def __init__(self, state: reference.State, block: str, projection: str) -> None:
        super().__init__()
        weight, bias = state[f"{block}.ffn.0.weight"], state[f"{block}.ffn.0.bias"]
        out, out_bias = state[f"{projection}.weight"], state[f"{projection}.bias"]
        width = len(out)
        message = weight[:, width:]
        self.inside = Dense(torch.cat([weight[:, :width], message @ out], 1), bias + message @ out_bias)
        self.norm = nn.LayerNorm(2 * width)
        self.norm.weight = nn.Parameter(state[f"{block}.ffn.1.weight"])
        self.norm.bias = nn.Parameter(state[f"{block}.ffn.1.bias"])
        self.outside = Dense(state[f"{block}.ffn.3.weight"], state[f"{block}.ffn.3.bias"])

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Embeddings x (B, N, W) and attention output context (B, N, W) to embeddings (B, N, W)."""
        hidden = F.gelu(self.norm(self.inside(torch.cat([x, context], -1))))
        return x + self.outside(hidden)


class SelfBlock(nn.Module):
    """Self-attention among the keypoints of one image, with rotary positional encoding."""

    def __init__(self, state: reference.State, index: int, ops: Operators) -> None:
        super().__init__()
        shape = shape_of(state)
        self.ops, self.heads = ops, shape.heads
        block = f"self_attn.{index}"
        weight = state[f"{block}.Wqkv.weight"].reshape(shape.heads, shape.head_dim, 3, shape.width)
        bias = state[f"{block}.Wqkv.bias"].reshape(shape.heads, shape.head_dim, 3)
        halves = torch.cat([torch.arange(0, shape.head_dim, 2), torch.arange(1, shape.head_dim, 2)])
        self.query = Dense(weight[:, halves, 0].flatten(0, 1), bias[:, halves, 0].flatten())
        self.key = Dense(weight[:, halves, 1].flatten(0, 1), bias[:, halves, 1].flatten())
        self.value = Dense(weight[:, :, 2].flatten(0, 1), bias[:, :, 2].flatten())
        self.ffn = FeedForward(state, block, f"{block}.out_proj")

    def forward(self, x: Tensor, cosines: Tensor, sines: Tensor, lengths: Tensor) -> Tensor:
        """Embeddings x (B, N, W) to (B, N, W); cosines and sines (B, N, D / 2) of the positions, lengths (B,) int64."""
        query, key = (self.ops.rotate(project(x), cosines, sines, self.heads) for project in (self.query, self.key))
        return self.ffn(x, self.ops.attend(query, key, self.value(x), lengths, self.heads))


class CrossBlock(nn.Module):
    """Cross-attention between the keypoints of two images, in both directions."""

    def __init__(self, state: reference.State, index: int, ops: Operators) -> None:
        super().__init__()
        self.ops, self.heads = ops, shape_of(state).heads
        block = f"cross_attn.{index}"
        self.query_key = Dense(state[f"{block}.to_qk.weight"], state[f"{block}.to_qk.bias"])
        self.value = Dense(state[f"{block}.to_v.weight"], state[f"{block}.to_v.bias"])
        self.ffn = FeedForward(state, block, f"{block}.to_out")

    def forward(self, x0: Tensor, x1: Tensor, lengths0: Tensor, lengths1: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings x0 (B, M, W) and x1 (B, N, W) to the same shapes; lengths0 and lengths1 (B,) int64."""
        qk0, qk1 = self.query_key(x0), self.query_key(x1)
        context0 = self.ops.attend(qk0, qk1, self.value(x1), lengths1, self.heads)
        context1 = self.ops.attend(qk1, qk0, self.value(x0), lengths0, self.heads)
        return self.ffn(x0, context0), self.ffn(x1, context1)
