"""Runs LightGlue layers and heads with the compiled kernels, from the .npz files that lgbatch.export.quantize writes.

The kernels match one pair after another, each on the core of the calling thread: a batch is no faster than its pairs,
and padding is not computed.
"""

import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from ctypes import byref, c_float
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lgbatch.kernels.library import (
    EMBED_DIM,
    GROUP,
    PANEL,
    DenseStruct,
    FeedForwardStruct,
    HeadStruct,
    LayerStruct,
    SideStruct,
    load_kernels,
)

Array = NDArray[Any]
_ALIGNMENT = 64
_scratch = threading.local()
"""The scratch buffer of each thread, for all stages: one per stage would take 18 times the memory."""


class Stage(ABC):
    """An opened .npz stage. Implements runtime.session.Session."""

    device: Literal["cpu"] = "cpu"
    inputs: list[str]
    outputs: list[str]
    widths: list[int | None]

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises OSError, ValueError or KeyError if it is damaged, and RuntimeError if the kernels are unavailable.
        """
        self._kernels = load_kernels()
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays: dict[str, Array] = {name: stored[name] for name in stored.files}
        self.metadata: dict[str, str] = json.loads(str(arrays.pop("metadata")))
        self._referenced: list[Array] = []  # the structs hold only addresses
        self._read(arrays)

    @abstractmethod
    def _read(self, arrays: Mapping[str, Array]) -> None:
        """Set up the stage from the arrays of its file, which are not kept besides their copies for the kernels."""

    def _reference(self, values: Array, shape: tuple[int, ...], dtype: type[np.generic]) -> int:
        """Address of a contiguous copy, kept alive with the stage. Raises ValueError if the shape differs."""
        if values.shape != shape:
            raise ValueError(f"an array has shape {values.shape}, expected {shape}")
        self._referenced.append(np.ascontiguousarray(values, dtype=dtype))
        return _address(self._referenced[-1])


class Layer(Stage):
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
                sides.append(SideStruct(*[None if array is None else _address(array[item]) for array in arrays], count))
            scratch = _scratch_address(self._kernels.layer_scratch_bytes(*lengths))
            self._kernels.layer(byref(self._layer), byref(sides[0]), byref(sides[1]), scratch)
        return [*outputs, *decisions][: len(self.outputs)]

    def _layer_struct(self, arrays: Mapping[str, Array], has_self_attention: bool, has_decisions: bool) -> LayerStruct:
        layer = LayerStruct(has_self_attention=has_self_attention)
        if has_self_attention:
            names = [f"self_block.{name}" for name in ("query", "key", "value")]
            layer.self_projection = self._dense(arrays, EMBED_DIM, *names)
            layer.self_ffn = self._feed_forward(arrays, "self_block.ffn")
        layer.cross_projection = self._dense(arrays, EMBED_DIM, "cross_block.query_key", "cross_block.value")
        layer.cross_ffn = self._feed_forward(arrays, "cross_block.ffn")
        if has_decisions:
            weight = arrays["deciders.both.weight"].T
            layer.decision_weight = self._reference(weight, (2, EMBED_DIM), np.float32)
            layer.decision_bias = (c_float * 2)(*arrays["deciders.both.bias"].tolist())
        return layer

    def _feed_forward(self, arrays: Mapping[str, Array], name: str) -> FeedForwardStruct:
        norm = [
            self._reference(arrays[f"{name}.norm.{part}"], (2 * EMBED_DIM,), np.float32) for part in ("weight", "bias")
        ]
        linear1 = self._dense(arrays, 2 * EMBED_DIM, f"{name}.inside", out_dim=2 * EMBED_DIM)
        return FeedForwardStruct(linear1, self._dense(arrays, 2 * EMBED_DIM, f"{name}.outside"), *norm)

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


class Head(Stage):
    """The matching head after a layer."""

    inputs: list[str] = ["x0", "x1", "lengths0", "lengths1", "threshold"]  # noqa: RUF012
    outputs: list[str] = ["matches0", "scores"]  # noqa: RUF012
    widths: list[int | None] = [None, None]  # noqa: RUF012

    def _read(self, arrays: Mapping[str, Array]) -> None:
        projection, matchability = _bfloat16(arrays["project.weight"]), arrays["matchability.weight"]
        panels_shape = (EMBED_DIM // PANEL, EMBED_DIM // 2, PANEL, 2)
        self._head = HeadStruct(
            self._reference(_panels(projection, 2), panels_shape, np.uint16),
            self._reference(arrays["project.bias"], (EMBED_DIM,), np.float32),
            self._reference(matchability[:, 0], (EMBED_DIM,), np.float32),
            float(arrays["matchability.bias"][0]),
        )

    def run(self, feed: Mapping[str, Array]) -> Sequence[Array]:
        """Match a padded batch of pairs.

        Inputs: x0 (B, M, W) and x1 (B, N, W) float32, lengths0 and lengths1 (B,) int64, threshold () float32. Outputs:
        matches0 (B, M) int64, -1 if unmatched, and scores (B, M) float32, 0 if unmatched. Padding is unmatched.
        """
        x0, x1 = (np.ascontiguousarray(feed[name]) for name in ("x0", "x1"))
        matches0, scores = np.full(x0.shape[:2], -1, np.int64), np.zeros(x0.shape[:2], np.float32)
        threshold = float(feed["threshold"])
        for item, lengths in enumerate(zip(feed["lengths0"].tolist(), feed["lengths1"].tolist(), strict=True)):
            scratch = _scratch_address(self._kernels.head_scratch_bytes(*lengths, threshold))
            inputs, outputs = ([_address(array[item]) for array in arrays] for arrays in ((x0, x1), (matches0, scores)))
            self._kernels.head(byref(self._head), *inputs, *lengths, threshold, scratch, *outputs)
        return [matches0, scores]


def _panels(weight: Array, interleave: int) -> Array:
    """Rearrange a matrix (in, out) to GEMM panels (out / PANEL, in / interleave, PANEL, interleave)."""
    in_dim, out_dim = weight.shape
    return weight.reshape(in_dim // interleave, interleave, out_dim // PANEL, PANEL).transpose(2, 0, 3, 1)


def _bfloat16(values: Array) -> Array:
    """Round float32 to bfloat16, to nearest even, as uint16 bits."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _scratch_address(size: int) -> int:
    """Address of an aligned scratch buffer of `size` bytes of the calling thread, reused between calls."""
    if getattr(_scratch, "size", -1) < size:
        _scratch.buffer, _scratch.size = None, -1  # freed before the larger one is allocated
        _scratch.buffer, _scratch.size = np.empty(size + _ALIGNMENT, np.uint8), size
    return -(-_address(_scratch.buffer) // _ALIGNMENT) * _ALIGNMENT


def _address(array: Array) -> int:
    return int(array.ctypes.data)
