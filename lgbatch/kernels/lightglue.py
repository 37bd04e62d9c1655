"""Runs LightGlue's stem, layers and heads with the compiled kernels, from .npz files of lgbatch.export.quantize.

The kernels match one pair after another, each on the core of the calling thread: a batch is no faster than its pairs,
and padding is not computed.
"""

import ctypes
from collections.abc import Mapping, Sequence
from ctypes import POINTER, byref, c_float, c_int64, c_size_t, c_void_p
from pathlib import Path

import numpy as np

from lgbatch.kernels.library import PANEL, load_function
from lgbatch.kernels.session import Array, KernelSession, address, bfloat16, scratch_address

EMBED_DIM, HEAD_DIM, GROUP = 256, 64, 256
"""Constants of c/lightglue/types.h. The structs must match it too, field by field."""


class DenseStruct(ctypes.Structure):
    """x W + b with a weight in int8 or bfloat16."""

    _fields_ = (
        ("weight", c_void_p),
        ("zero_point_sum", c_void_p),
        ("scale", c_void_p),
        ("bias", c_void_p),
        ("in_dim", c_int64),
        ("out_dim", c_int64),
        ("weight_bf16", c_void_p),
    )


class FeedForwardStruct(ctypes.Structure):
    """Two dense layers with layer normalization and GELU in between."""

    _fields_ = (
        ("linear1", DenseStruct),
        ("linear2", DenseStruct),
        ("norm_weight", c_void_p),
        ("norm_bias", c_void_p),
    )


class StemStruct(ctypes.Structure):
    """Weights of the stem."""

    _fields_ = (
        ("projection_weight", c_void_p),
        ("projection_bias", c_void_p),
        ("descriptor_dim", c_int64),
        ("self_projection", DenseStruct),
        ("self_ffn", FeedForwardStruct),
    )


class LayerStruct(ctypes.Structure):
    """Weights of a layer."""

    _fields_ = (
        ("self_projection", DenseStruct),
        ("self_ffn", FeedForwardStruct),
        ("cross_projection", DenseStruct),
        ("cross_ffn", FeedForwardStruct),
        ("decision_weight", c_void_p),
        ("decision_bias", c_float * 2),
        ("has_self_attention", c_int64),
    )


class HeadStruct(ctypes.Structure):
    """Weights of a matching head."""

    _fields_ = (
        ("projection", DenseStruct),
        ("matchability_weight", c_void_p),
        ("matchability_bias", c_float),
    )


class SideStruct(ctypes.Structure):
    """Inputs and outputs of a layer for one image of a pair, and of the stem."""

    _fields_ = (
        ("x", c_void_p),
        ("cosines", c_void_p),
        ("sines", c_void_p),
        ("y", c_void_p),
        ("confidence", c_void_p),
        ("matchability", c_void_p),
        ("count", c_int64),
    )


class _DenseSession(KernelSession):
    """A session whose model has dense layers."""

    def _self_block(self, arrays: Mapping[str, Array]) -> tuple[DenseStruct, FeedForwardStruct]:
        names = [f"self_block.{name}" for name in ("query", "key", "value")]
        return self._dense(arrays, EMBED_DIM, *names), self._feed_forward(arrays, "self_block.ffn")

    def _feed_forward(self, arrays: Mapping[str, Array], name: str) -> FeedForwardStruct:
        norm = [
            self._reference(arrays[f"{name}.norm.{part}"], (2 * EMBED_DIM,), np.float32) for part in ("weight", "bias")
        ]
        linear1 = self._dense(arrays, 2 * EMBED_DIM, f"{name}.inside", out_dim=2 * EMBED_DIM)
        return FeedForwardStruct(linear1, self._dense_bf16(arrays, 2 * EMBED_DIM, f"{name}.outside"), *norm)

    def _dense_bf16(self, arrays: Mapping[str, Array], in_dim: int, name: str) -> DenseStruct:
        """A dense layer to embeddings whose weight (in_dim, EMBED_DIM) is float32 in the file."""
        weight = _panels(bfloat16(arrays[f"{name}.weight"]), 2)
        return DenseStruct(
            bias=self._reference(arrays[f"{name}.bias"], (EMBED_DIM,), np.float32),
            in_dim=in_dim,
            out_dim=EMBED_DIM,
            weight_bf16=self._reference(weight, (EMBED_DIM // PANEL, in_dim // 2, PANEL, 2), np.uint16),
        )

    def _dense(self, arrays: Mapping[str, Array], in_dim: int, *names: str, out_dim: int = EMBED_DIM) -> DenseStruct:
        """Fuse dense layers of the same input into one: weights (in_dim, out_dim), concatenated along the outputs."""
        total = out_dim * len(names)
        weight = np.concatenate([arrays[f"{name}.weight.int8"] for name in names], 1)
        zero_point_sum = -128 * weight.reshape(-1, GROUP, total).sum(1, dtype=np.int32)
        scale, bias = (
            np.concatenate([arrays[f"{name}.{part}"] for name in names]) for part in ("weight.scales", "bias")
        )
        return DenseStruct(
            self._reference(_panels(weight, 4), (total // PANEL, in_dim // 4, PANEL, 4), np.int8),
            self._reference(zero_point_sum, (in_dim // GROUP, total), np.int32),
            self._reference(scale, (total,), np.float32),
            self._reference(bias, (total,), np.float32),
            in_dim,
            total,
        )


class Stem(_DenseSession):
    """The stem of LightGlue: input projection, positional encoding and the first self-attention."""

    inputs: list[str] = ["keypoints", "descriptors", "size", "lengths"]  # noqa: RUF012
    outputs: list[str] = ["x", "cosines", "sines"]  # noqa: RUF012
    widths: list[int | None] = [EMBED_DIM, HEAD_DIM // 2, HEAD_DIM // 2]  # noqa: RUF012

    def _read(self, arrays: Mapping[str, Array]) -> None:
        self._frequencies = arrays["frequencies"]
        if self._frequencies.shape not in ((2, HEAD_DIM // 2), (4, HEAD_DIM // 2)):
            raise ValueError(f"frequencies have shape {self._frequencies.shape}")
        weight, self._stem = arrays.get("project.weight"), StemStruct(descriptor_dim=EMBED_DIM)
        if weight is not None:
            self._stem.descriptor_dim = len(weight)
            self._stem.projection_weight = self._reference(weight, (len(weight), EMBED_DIM), np.float32)
            self._stem.projection_bias = self._reference(arrays["project.bias"], (EMBED_DIM,), np.float32)
        self._stem.self_projection, self._stem.self_ffn = self._self_block(arrays)
        self._run = load_function("stem", None, POINTER(StemStruct), POINTER(SideStruct), c_void_p)
        self._scratch_bytes = load_function("stem_scratch_bytes", c_size_t, c_int64)

    def run(self, feed: Mapping[str, Array]) -> Sequence[Array]:
        """Encode a padded batch of images.

        Inputs: keypoints (B, N, 2 or 4) and descriptors (B, N, C) float32, size (B, 2) float32, lengths (B,) int64.
        Outputs: x (B, N, W), cosines and sines (B, N, D / 2). Padded rows of x are undefined.
        """
        descriptors = np.ascontiguousarray(feed["descriptors"], np.float32)
        if descriptors.shape[2] != self._stem.descriptor_dim:
            raise ValueError(f"descriptors of {descriptors.shape[2]} numbers, expected {self._stem.descriptor_dim}")
        x = np.empty((*descriptors.shape[:2], EMBED_DIM), np.float32)
        phases = self._phases(feed["keypoints"], feed["size"])
        cosines, sines = np.cos(phases), np.sin(phases)
        for item, count in enumerate(feed["lengths"].tolist()):
            pointers = [address(array[item]) for array in (descriptors, cosines, sines, x)]
            scratch = scratch_address(self._scratch_bytes(count))
            self._run(byref(self._stem), byref(SideStruct(*pointers, None, None, count)), scratch)
        return [x, cosines, sines]

    def _phases(self, keypoints: Array, size: Array) -> Array:
        """Angles (B, N, D / 2) of the rotary encoding; without BLAS, whose threads would wait for each other."""
        half = size[:, None].astype(np.float32) / 2
        position = (keypoints[..., :2].astype(np.float32) - half) / half.max(2, keepdims=True)
        numbers = [*np.moveaxis(position, 2, 0), *np.moveaxis(keypoints[..., 2:], 2, 0)]
        terms = [number[..., None] * row for number, row in zip(numbers, self._frequencies, strict=True)]
        return np.asarray(sum(terms[1:], start=terms[0]))


class Layer(_DenseSession):
    """A layer of LightGlue: self-attention (except in the first layer), then cross-attention."""

    def _read(self, arrays: Mapping[str, Array]) -> None:
        has_self_attention = "self_block.query.bias" in arrays
        has_decisions = "deciders.both.weight" in arrays
        names = ["x", "lengths", *(["cosines", "sines"] if has_self_attention else [])]
        self.inputs = [f"{name}{side}" for name in names for side in (0, 1)]
        self.outputs = ["y0", "y1"]
        if has_decisions:
            self.outputs += [f"{name}{side}" for side in (0, 1) for name in ("confidence", "matchability")]
        self.widths = [EMBED_DIM, EMBED_DIM, *[None] * (len(self.outputs) - 2)]
        self._layer = self._layer_struct(arrays, has_self_attention, has_decisions)
        pointers = POINTER(LayerStruct), POINTER(SideStruct), POINTER(SideStruct), c_void_p
        self._run = load_function("layer", None, *pointers)
        self._scratch_bytes = load_function("layer_scratch_bytes", c_size_t, c_int64, c_int64)

    def run(self, feed: Mapping[str, Array]) -> Sequence[Array]:
        """Run the layer on a padded batch of pairs.

        Inputs: x0 (B, M, W) and x1 (B, N, W) float32, lengths0 and lengths1 (B,) int64, and, except in the first
        layer, cosines and sines (B, M or N, D / 2) of each side. Outputs: y0 (B, M, W), y1 (B, N, W) and, except in
        the last layer, confidence and matchability (B, M or N) of each side. Padded rows of outputs are undefined.
        """
        feed = {name: np.ascontiguousarray(value) for name, value in feed.items()}
        outputs = [np.empty_like(feed[f"x{side}"]) for side in (0, 1)]
        decisions = [np.empty(feed[f"x{side}"].shape[:2], np.float32) for side in (0, 1) for _ in range(2)]
        for item, lengths in enumerate(zip(feed["lengths0"].tolist(), feed["lengths1"].tolist(), strict=True)):
            sides = []
            for side, count in enumerate(lengths):
                inputs = [feed.get(f"{name}{side}") for name in ("x", "cosines", "sines")]
                arrays = [*inputs, outputs[side], decisions[2 * side], decisions[2 * side + 1]]
                sides.append(SideStruct(*[None if array is None else address(array[item]) for array in arrays], count))
            scratch = scratch_address(self._scratch_bytes(*lengths))
            self._run(byref(self._layer), byref(sides[0]), byref(sides[1]), scratch)
        return [*outputs, *decisions][: len(self.outputs)]

    def _layer_struct(self, arrays: Mapping[str, Array], has_self_attention: bool, has_decisions: bool) -> LayerStruct:
        layer = LayerStruct(has_self_attention=has_self_attention)
        if has_self_attention:
            layer.self_projection, layer.self_ffn = self._self_block(arrays)
        layer.cross_projection = self._dense(arrays, EMBED_DIM, "cross_block.query_key", "cross_block.value")
        layer.cross_ffn = self._feed_forward(arrays, "cross_block.ffn")
        if has_decisions:
            weight = arrays["deciders.both.weight"].T
            layer.decision_weight = self._reference(weight, (2, EMBED_DIM), np.float32)
            layer.decision_bias = (c_float * 2)(*arrays["deciders.both.bias"].tolist())
        return layer


class Head(_DenseSession):
    """The matching head after a layer."""

    inputs: list[str] = ["x0", "x1", "lengths0", "lengths1", "threshold"]  # noqa: RUF012
    outputs: list[str] = ["matches0", "scores"]  # noqa: RUF012
    widths: list[int | None] = [None, None]  # noqa: RUF012

    def _read(self, arrays: Mapping[str, Array]) -> None:
        self._head = HeadStruct(
            self._dense_bf16(arrays, EMBED_DIM, "project"),
            self._reference(arrays["matchability.weight"][:, 0], (EMBED_DIM,), np.float32),
            float(arrays["matchability.bias"][0]),
        )
        pointers, counts = [c_void_p] * 2, [c_int64] * 2
        self._run = load_function("head", None, POINTER(HeadStruct), *pointers, *counts, c_float, *[c_void_p] * 3)
        self._scratch_bytes = load_function("head_scratch_bytes", c_size_t, *counts, c_float)

    def run(self, feed: Mapping[str, Array]) -> Sequence[Array]:
        """Match a padded batch of pairs.

        Inputs: x0 (B, M, W) and x1 (B, N, W) float32, lengths0 and lengths1 (B,) int64, threshold () float32. Outputs:
        matches0 (B, M) int64, -1 if unmatched, and scores (B, M) float32, 0 if unmatched. Padding is unmatched.
        """
        x0, x1 = (np.ascontiguousarray(feed[name]) for name in ("x0", "x1"))
        matches0, scores = np.full(x0.shape[:2], -1, np.int64), np.zeros(x0.shape[:2], np.float32)
        threshold = float(feed["threshold"])
        for item, lengths in enumerate(zip(feed["lengths0"].tolist(), feed["lengths1"].tolist(), strict=True)):
            scratch = scratch_address(self._scratch_bytes(*lengths, threshold))
            inputs, outputs = ([address(array[item]) for array in arrays] for arrays in ((x0, x1), (matches0, scores)))
            self._run(byref(self._head), *inputs, *lengths, threshold, scratch, *outputs)
        return [matches0, scores]


def open_stage(path: Path, kind: str) -> Stem | Layer | Head:
    """Open a stage of a kind of registry.INTERFACE. Raises as KernelSession."""
    return Stem(path) if kind == "stem" else Head(path) if kind == "head" else Layer(path)


def _panels(weight: Array, interleave: int) -> Array:
    """Rearrange a matrix (in, out) to GEMM panels (out / PANEL, in / interleave, PANEL, interleave).

    NumPy copies whole rows of a panel several times as fast as all axes at once.
    """
    in_dim, out_dim = weight.shape
    panels = np.empty((out_dim // PANEL, in_dim // interleave, PANEL, interleave), weight.dtype)
    for row in range(interleave):
        panels[..., row] = weight[row::interleave].reshape(-1, out_dim // PANEL, PANEL).transpose(1, 0, 2)
    return panels
