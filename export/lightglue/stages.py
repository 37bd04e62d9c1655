"""The stages of LightGlue (Lindenberger, Sarlin and Pollefeys, ICCV 2023) as PyTorch modules: stem, layers, heads.

lgbatch runs the stages one at a time, so that pairs can leave a batch between layers (early exit) and keypoints can be
pruned. `Matcher` is the same network as a single module, for other programs. reference.lightglue is the network as the
paper describes it; every export is compared with it.

Shapes: B is the batch size, M and N the padded numbers of keypoints, W the embedding dimension, D the head dimension.
Keypoints are in pixels, top-left pixel centre (0, 0).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lgbatch.export import reference
from lgbatch.export.lightglue.blocks import FAR, CrossBlock, Dense, Operators, SelfBlock, shape_of

TINY = 1e-30
"""Lower bound of the sums of exponentials, against division by zero. Sums for valid rows are larger."""


class Stem(nn.Module):
    """The part that depends on one image only: input projection, positional encoding and first self-attention.

    Callers encode each image once and reuse the result for all its pairs.
    """

    def __init__(self, state: reference.State, ops: Operators) -> None:
        super().__init__()
        self.project: nn.Module = nn.Identity()
        if "input_proj.weight" in state:
            self.project = Dense(state["input_proj.weight"], state["input_proj.bias"])
        self.frequencies = nn.Parameter(state["posenc.Wr.weight"].T.contiguous())
        self.self_block = SelfBlock(state, 0, ops)

    def forward(
        self, keypoints: Tensor, descriptors: Tensor, size: Tensor, lengths: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Encode the keypoints of each image.

        keypoints (B, N, 2), or (B, N, 4) with scales and orientations for SIFT; descriptors (B, N, C), C the descriptor
        dimension; size (B, 2), width and height in pixels; lengths (B,) int64.
        Returns embeddings x (B, N, W), and cosines and sines (B, N, D / 2) of the positional encoding.
        """
        half = size / 2
        normalized = (keypoints[..., :2] - half[:, None]) / half.amax(-1)[:, None, None]
        if len(self.frequencies) > 2:
            normalized = torch.cat([normalized, keypoints[..., 2:]], -1)
        phase = normalized @ self.frequencies
        cosines, sines = torch.cos(phase), torch.sin(phase)
        return self.self_block(self.project(descriptors), cosines, sines, lengths), cosines, sines


class Layer(nn.Module):
    """One layer: self-attention of both images, then cross-attention. The first self-attention is in the stem.

    With `decide`, the layer also returns the confidence and the matchability of each keypoint.
    """

    def __init__(self, state: reference.State, index: int, ops: Operators, *, decide: bool = False) -> None:
        super().__init__()
        self.self_block = SelfBlock(state, index, ops) if index else None
        self.cross_block = CrossBlock(state, index, ops)
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
        """Embeddings x0 (B, M, W) and x1 (B, N, W) to embeddings of the same shapes.

        cosines0 and sines0 (B, M, D / 2), cosines1 and sines1 (B, N, D / 2) are the stem's; the first layer takes none.
        With `decide`, also returns confidence0 and matchability0 (B, M), then confidence1 and matchability1 (B, N).
        """
        if self.self_block is not None:
            x0 = self.self_block(x0, cosines0, sines0, lengths0)
            x1 = self.self_block(x1, cosines1, sines1, lengths1)
        x0, x1 = self.cross_block(x0, x1, lengths0, lengths1)
        return (x0, x1) if self.deciders is None else (x0, x1, *self.deciders(x0), *self.deciders(x1))


class Deciders(nn.Module):
    """Confidence, for early exit and point pruning, and matchability, for point pruning."""

    def __init__(self, state: reference.State, index: int) -> None:
        super().__init__()
        token, match = f"token_confidence.{index}.token.0", f"log_assignment.{index}.matchability"
        weight = torch.cat([state[f"{name}.weight"] for name in (token, match)])
        self.both = Dense(weight, torch.cat([state[f"{name}.bias"] for name in (token, match)]))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings x (B, N, W) to confidence (B, N) and matchability (B, N), both in 0..1."""
        both = self.both(x).sigmoid()
        return both[..., 0], both[..., 1]


class Head(nn.Module):
    """Assignment of the keypoints of two images, and the mutual matches in it.

    The assignment is the softmax over rows times the softmax over columns times both matchabilities. Both softmaxes
    share one exponential, relative to the largest similarity of the pair: the similarities of the best matches of a
    pair lie within 40 of each other (measured), and single precision allows 87. A factor that is constant along an axis
    does not change the argmax along it, so each argmax weights the exponential by the other factor only, under a square
    root. The factor d^-1/4 on both sides of the similarity is folded into the projection.
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
        """Match embeddings x0 (B, M, W) and x1 (B, N, W); lengths (B,) int64, threshold () the minimum score.

        Returns matches0 (B, M) int64, -1 for none, and scores (B, M), 0 for none.
        """
        valid0 = torch.arange(x0.shape[1])[None] < lengths0[:, None]
        valid1 = torch.arange(x1.shape[1])[None] < lengths1[:, None]
        y0, y1 = self._projected(x0, valid0, 0), self._projected(x1, valid1, 1)
        similarity = y0 @ y1.transpose(1, 2)
        shared = torch.exp(similarity - similarity.amax((1, 2), keepdim=True))
        # ONNX Runtime reduces columns several times slower than rows (measured): hence the transposition below, and
        # sums as products with ones.
        sums0 = (shared @ torch.ones_like(x1[..., :1]))[..., 0]
        sums1 = (torch.ones_like(x0[..., :1]).transpose(1, 2) @ shared)[:, 0]
        weight0 = self.matchability(x0)[..., 0].sigmoid() / sums0.clamp(min=TINY)
        weight1 = self.matchability(x1)[..., 0].sigmoid() / sums1.clamp(min=TINY)
        weighted = shared * weight1.sqrt()[:, None]
        match0 = weighted.argmax(2)
        match1 = (shared.transpose(1, 2) * weight0.sqrt()[:, None]).argmax(2)
        scores = weighted.gather(2, match0[..., None])[..., 0].square() * weight0
        mutual = match1.gather(1, match0) == torch.arange(x0.shape[1])[None]
        matched = mutual & valid0 & valid1.gather(1, match0) & (scores > threshold)
        return torch.where(matched, match0, -1), torch.where(matched, scores, 0.0)

    def _projected(self, x: Tensor, valid: Tensor, side: int) -> Tensor:
        """Project x; two extra channels add FAR to every similarity of a padded row, without an N x N mask."""
        projected = torch.where(valid[..., None], self.project(x), 0.0)
        far = torch.where(valid, 0.0, FAR)[..., None]
        extra = [far, torch.ones_like(far)]
        return torch.cat([projected, extra[side], extra[1 - side]], -1)


class Pack(nn.Module):
    """Gathers the remaining keypoints into a smaller padded batch, for sessions that keep tensors on a GPU."""

    def forward(self, x: Tensor, cosines: Tensor, sines: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gather x (B, N, W), cosines and sines (B, N, D / 2) into (B', N', W) and (B', N', D / 2).

        rows (B', N') int64 index the flattened first two axes.
        """
        packed = [F.embedding(rows, values.flatten(0, 1)) for values in (x, cosines, sines)]  # exported as Gather
        return packed[0], packed[1], packed[2]


class Matcher(nn.Module):
    """The whole network: stem, all layers, and the last head."""

    def __init__(self, state: reference.State, ops: Operators) -> None:
        super().__init__()
        self.stem = Stem(state, ops)
        depth = shape_of(state).layers
        self.layers = nn.ModuleList(Layer(state, i, ops) for i in range(depth))
        self.head = Head(state, depth - 1)

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

        keypoints (B, M or N, 2) float32 in pixels, or for SIFT (B, M or N, 4) with scales in pixels and orientations in
        radians; descriptors (B, M or N, C) float32, C the descriptor dimension; size (B, 2) float32, width and height
        in pixels; lengths (B,) int64, the valid rows of each item; threshold () float32, the minimum score.
        Returns matches0 (B, M) int64, -1 for none, and scores (B, M) float32, 0 for none.
        """
        x0, cosines0, sines0 = self.stem(keypoints0, descriptors0, size0, lengths0)
        x1, cosines1, sines1 = self.stem(keypoints1, descriptors1, size1, lengths1)
        for layer in self.layers:
            x0, x1 = layer(x0, x1, lengths0, lengths1, cosines0, cosines1, sines0, sines1)
        return self.head(x0, x1, lengths0, lengths1, threshold)
