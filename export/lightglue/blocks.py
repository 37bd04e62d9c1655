"""LightGlue (Lindenberger, Sarlin and Pollefeys, ICCV 2023) as an ONNX matcher for padded batches.

The exported graph is the published network with exact algebra folded into its weights:

- attention's output projection goes into the first matrix of the feed-forward network behind it:
  W1 [x; Wo c + bo] + b1 = [W1x, W1m Wo] [x; c] + (b1 + W1m bo);
- the rows of queries and keys are permuted so that the rotary embedding works on two contiguous halves of a head;
- the head's d^-1/4 on both sides goes into its projection.

Padding is told by lengths: the standard operator Attention (opset 24) takes the number of valid keys of each item,
so padded keys change nothing, to the last bit, and no N x N mask is made. Rows of padded queries hold numbers that
nobody reads; the head leaves them out.

reference.lightglue is the network as the paper writes it, which every export is compared with.
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
"""Where attention told by lengths begins; below it, attention and rotary embedding are written out."""

FAR = -1e4
"""What keeps padding from matching: its exponential is zero."""


def shape_of(state: reference.State) -> Shape:
    """How large a LightGlue these weights are of. Raises KeyError when they are another network's."""
    width, head_dim = len(state["self_attn.0.out_proj.weight"]), 2 * len(state["posenc.Wr.weight"])
    layers = sum(name.endswith(".final_proj.weight") for name in state)
    return Shape(layers=layers, width=width, heads=width // head_dim)


def attention(query: Tensor, key: Tensor, value: Tensor, lengths: Tensor, heads: int) -> Tensor:
    """Softmax attention over the first `lengths` (B,) int64 keys; (B, M, W), (B, N, W), (B, N, W) to (B, M, W)."""
    return symbolic(
        "Attention",
        (query, key, value, None, None, None, lengths),
        {"q_num_heads": heads, "kv_num_heads": heads},
        dtype=query.dtype,
        shape=query.shape,
        version=OPSET,
    )


def plain_attention(query: Tensor, key: Tensor, value: Tensor, lengths: Tensor, heads: int) -> Tensor:
    """The same, written out."""
    head_dim = query.shape[-1] // heads
    padding = torch.where(torch.arange(key.shape[1])[None] < lengths[:, None], 0.0, FAR)
    each = [x.unflatten(-1, (heads, head_dim)).transpose(1, 2) for x in (query * head_dim**-0.5, key, value)]
    weights = (each[0] @ each[1].transpose(2, 3) + padding[:, None, None]).softmax(-1)
    return (weights @ each[2]).transpose(1, 2).flatten(2)


def rotary(x: Tensor, cosines: Tensor, sines: Tensor, heads: int) -> Tensor:
    """Turn the two halves of each head of x (B, N, W) by the angles of (B, N, D / 2)."""
    return rotary_embedding(x, cosines, sines, num_heads=heads)


def plain_rotary(x: Tensor, cosines: Tensor, sines: Tensor, heads: int) -> Tensor:
    """The same, written out."""
    first, second = x.unflatten(-1, (heads, 2, -1)).unbind(-2)
    cosine, sine = cosines[:, :, None], sines[:, :, None]
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], -1).flatten(2)


@dataclass(frozen=True)
class Operators:
    """How the two parts of a layer that are operators of their own are written."""

    attend: Callable[[Tensor, Tensor, Tensor, Tensor, int], Tensor] = attention
    rotate: Callable[[Tensor, Tensor, Tensor, int], Tensor] = rotary


def operators(opset: int) -> Operators:
    """Those that an opset has."""
    return Operators() if opset >= OPSET else Operators(plain_attention, plain_rotary)


class Dense(nn.Module):
    """x W + b. The weight is kept as it is multiplied, (in, out), and so ends up in the ONNX file under its name."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight.T.contiguous()), nn.Parameter(bias.contiguous())

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        return x @ self.weight + self.bias


class FeedForward(nn.Module):
    """x + W2 gelu(norm(W1 [x; context])), with attention's output projection folded into W1."""

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
        """(B, N, W) and (B, N, W) to (B, N, W)."""
        hidden = F.gelu(self.norm(self.inside(torch.cat([x, context], -1))))
        return x + self.outside(hidden)


class SelfBlock(nn.Module):
    """The points of one image look at each other, with rotary positions."""

    def __init__(self, state: reference.State, index: int, by: Operators) -> None:
        super().__init__()
        shape = shape_of(state)
        self.by, self.heads = by, shape.heads
        block = f"self_attn.{index}"
        weight = state[f"{block}.Wqkv.weight"].reshape(shape.heads, shape.head_dim, 3, shape.width)
        bias = state[f"{block}.Wqkv.bias"].reshape(shape.heads, shape.head_dim, 3)
        halves = torch.cat([torch.arange(0, shape.head_dim, 2), torch.arange(1, shape.head_dim, 2)])
        self.query = Dense(weight[:, halves, 0].flatten(0, 1), bias[:, halves, 0].flatten())
        self.key = Dense(weight[:, halves, 1].flatten(0, 1), bias[:, halves, 1].flatten())
        self.value = Dense(weight[:, :, 2].flatten(0, 1), bias[:, :, 2].flatten())
        self.ffn = FeedForward(state, block, f"{block}.out_proj")

    def forward(self, x: Tensor, cosines: Tensor, sines: Tensor, lengths: Tensor) -> Tensor:
        """(B, N, W) to (B, N, W); cosines and sines are (B, N, D / 2), D the width of a head."""
        query, key = (self.by.rotate(part(x), cosines, sines, self.heads) for part in (self.query, self.key))
        return self.ffn(x, self.by.attend(query, key, self.value(x), lengths, self.heads))


class CrossBlock(nn.Module):
    """The points of each image look at those of the other."""

    def __init__(self, state: reference.State, index: int, by: Operators) -> None:
        super().__init__()
        self.by, self.heads = by, shape_of(state).heads
        block = f"cross_attn.{index}"
        self.query_key = Dense(state[f"{block}.to_qk.weight"], state[f"{block}.to_qk.bias"])
        self.value = Dense(state[f"{block}.to_v.weight"], state[f"{block}.to_v.bias"])
        self.ffn = FeedForward(state, block, f"{block}.to_out")

    def forward(self, x0: Tensor, x1: Tensor, lengths0: Tensor, lengths1: Tensor) -> tuple[Tensor, Tensor]:
        """(B, M, W) and (B, N, W) to the same shapes."""
        qk0, qk1 = self.query_key(x0), self.query_key(x1)
        context0 = self.by.attend(qk0, qk1, self.value(x1), lengths1, self.heads)
        context1 = self.by.attend(qk1, qk0, self.value(x0), lengths0, self.heads)
        return self.ffn(x0, context0), self.ffn(x1, context1)
