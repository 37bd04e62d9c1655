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

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lgbatch.export import reference
from lgbatch.export.lightglue.blocks import FAR, CrossBlock, Dense, Operators, SelfBlock, shape_of

TINY = 1e-30
"""Less than any sum of exponentials that matters."""


class Stem(nn.Module):
    """What depends on one image alone: input projection, positional encoding and the first self-attention."""

    def __init__(self, state: reference.State, by: Operators) -> None:
        super().__init__()
        self.project: nn.Module = nn.Identity()
        if "input_proj.weight" in state:
            self.project = Dense(state["input_proj.weight"], state["input_proj.bias"])
        self.frequencies = nn.Parameter(state["posenc.Wr.weight"].T.contiguous())
        self.self_block = SelfBlock(state, 0, by)

    def forward(
        self, keypoints: Tensor, descriptors: Tensor, size: Tensor, lengths: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Keypoints in pixels, descriptors (B, N, D), size (B, 2) to x (B, N, W), cosines and sines.

        Keypoints are (B, N, 2), or where the network was trained with them (B, N, 4), with scales and orientations.
        """
        half = size / 2
        normalized = (keypoints[..., :2] - half[:, None]) / half.amax(-1)[:, None, None]
        if len(self.frequencies) > 2:
            normalized = torch.cat([normalized, keypoints[..., 2:]], -1)
        phase = normalized @ self.frequencies
        cosines, sines = torch.cos(phase), torch.sin(phase)
        return self.self_block(self.project(descriptors), cosines, sines, lengths), cosines, sines


class Layer(nn.Module):
    """One layer: self-attention of both images (the first layer's is in the stem), then cross-attention.

    With `decide`, it also tells how sure each point is of its match, and how likely it has one.
    """

    def __init__(self, state: reference.State, index: int, by: Operators, *, decide: bool = False) -> None:
        super().__init__()
        self.self_block = SelfBlock(state, index, by) if index else None
        self.cross_block = CrossBlock(state, index, by)
        self.deciders = Deciders(state, index) if decide else None

    def forward(
        self,
        x0: Tensor,
        x1: Tensor,
        lengths0: Tensor,
        lengths1: Tensor,
        cosines0: Tensor | None = None,
        cosines1: Tensor | None = None,
        sines0: Tensor | None = None,
        sines1: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Each side's x (B, M or N, W); with `decide` also confidence and matchability (B, M or N) of each side.

        Cosines and sines (B, M or N, D / 2) are what the stem made; the first layer does without.
        """
        if self.self_block is not None:
            x0 = self.self_block(x0, cosines0, sines0, lengths0)
            x1 = self.self_block(x1, cosines1, sines1, lengths1)
        x0, x1 = self.cross_block(x0, x1, lengths0, lengths1)
        return (x0, x1) if self.deciders is None else (x0, x1, *self.deciders(x0), *self.deciders(x1))


class Deciders(nn.Module):
    """What early stopping and pruning look at."""

    def __init__(self, state: reference.State, index: int) -> None:
        super().__init__()
        token, match = f"token_confidence.{index}.token.0", f"log_assignment.{index}.matchability"
        weight = torch.cat([state[f"{name}.weight"] for name in (token, match)])
        self.both = Dense(weight, torch.cat([state[f"{name}.bias"] for name in (token, match)]))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """X (B, N, W) to confidence (B, N) and matchability (B, N), both in 0..1."""
        both = self.both(x).sigmoid()
        return both[..., 0], both[..., 1]


class Head(nn.Module):
    """Assignment of the points of two images, and the matches in it.

    The assignment is softmax over rows, times softmax over columns, times both matchabilities. Both softmaxes share
    one exponential, relative to the greatest similarity of the pair: real similarities of a pair's best partners
    lie within 40 of each other (measured), and single precision reaches to 87. What is constant along an axis does
    not change where its maximum is, so each axis weighs the exponential by what varies along it, square roots taken.
    """

    def __init__(self, state: reference.State, index: int) -> None:
        super().__init__()
        block = f"log_assignment.{index}"
        projection = state[f"{block}.final_proj.weight"]
        scale = len(projection) ** -0.25
        self.project = Dense(projection * scale, state[f"{block}.final_proj.bias"] * scale)
        self.matchability = Dense(state[f"{block}.matchability.weight"], state[f"{block}.matchability.bias"])

    def forward(
        self, x0: Tensor, x1: Tensor, lengths0: Tensor, lengths1: Tensor, threshold: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(B, M, W) and (B, N, W) to matches0 (B, M) int64, -1 for none, and scores (B, M)."""
        valid0 = torch.arange(x0.shape[1])[None] < lengths0[:, None]
        valid1 = torch.arange(x1.shape[1])[None] < lengths1[:, None]
        y0, y1 = self._padding_apart(x0, valid0, 0), self._padding_apart(x1, valid1, 1)
        similarity = y0 @ y1.transpose(1, 2)
        shared = torch.exp(similarity - similarity.amax((1, 2), keepdim=True))
        # ONNX Runtime is several times slower along columns than along rows (measured): hence the transposition
        # below, and sums as products with ones.
        sums0 = (shared @ torch.ones_like(x1[..., :1]))[..., 0]
        sums1 = (torch.ones_like(x0[..., :1]).transpose(1, 2) @ shared)[:, 0]
        weight0 = self.matchability(x0)[..., 0].sigmoid() / sums0.clamp(min=TINY)
        weight1 = self.matchability(x1)[..., 0].sigmoid() / sums1.clamp(min=TINY)
        along0 = shared * weight1.sqrt()[:, None]
        match0 = along0.argmax(2)
        match1 = (shared.transpose(1, 2) * weight0.sqrt()[:, None]).argmax(2)
        scores = along0.gather(2, match0[..., None])[..., 0].square() * weight0
        mutual = match1.gather(1, match0) == torch.arange(x0.shape[1])[None]
        found = mutual & valid0 & valid1.gather(1, match0) & (scores > threshold)
        return torch.where(found, match0, -1), torch.where(found, scores, 0.0)

    def _padding_apart(self, x: Tensor, valid: Tensor, side: int) -> Tensor:
        """Project, with two more channels that take FAR from every similarity of a padded row: no N x N mask."""
        projected = torch.where(valid[..., None], self.project(x), 0.0)
        far = torch.where(valid, 0.0, FAR)[..., None]
        more = [far, torch.ones_like(far)]
        return torch.cat([projected, more[side], more[1 - side]], -1)


class Pack(nn.Module):
    """Points that go on, gathered into another padded batch: where x, cosines and sines stay on a device."""

    def forward(self, x: Tensor, cosines: Tensor, sines: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, N, C) each, of the widths of a layer's inputs, to (B', N', C).

        rows (B', N') int64 are places in the first two axes of them taken as one.
        """
        packed = [F.embedding(rows, of.flatten(0, 1)) for of in (x, cosines, sines)]  # a Gather
        return packed[0], packed[1], packed[2]


class Matcher(nn.Module):
    """The single graph: all layers, then the last head."""

    def __init__(self, state: reference.State, by: Operators) -> None:
        super().__init__()
        self.stem = Stem(state, by)
        count = shape_of(state).layers
        self.layers = nn.ModuleList(Layer(state, i, by) for i in range(count))
        self.head = Head(state, count - 1)

    def forward(
        self,
        keypoints0: Tensor,
        keypoints1: Tensor,
        descriptors0: Tensor,
        descriptors1: Tensor,
        size0: Tensor,
        size1: Tensor,
        lengths0: Tensor,
        lengths1: Tensor,
        threshold: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Match padded pairs.

        keypoints (B, M or N, 2) float32, in pixels of images of `size` (B, 2) (width, height), and for SIFT (B, M or
        N, 4) with scales in pixels and orientations in radians; descriptors (B, M or N, D); lengths (B,) int64, the
        valid rows of each item; threshold () float32, the least probability.
        Returns matches0 (B, M) int64, -1 for none, and scores (B, M) float32, 0 for none.
        """
        x0, cosines0, sines0 = self.stem(keypoints0, descriptors0, size0, lengths0)
        x1, cosines1, sines1 = self.stem(keypoints1, descriptors1, size1, lengths1)
        for layer in self.layers:
            x0, x1 = layer(x0, x1, lengths0, lengths1, cosines0, cosines1, sines0, sines1)
        return self.head(x0, x1, lengths0, lengths1, threshold)
