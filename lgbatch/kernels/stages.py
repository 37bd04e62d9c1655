"""LightGlue's layers and heads in 8 and 16 bits, by what is compiled from the folder kernels/. The only user of that.

It is for processors with AVX-512 VNNI and BF16 (AMD since Zen 4, Intel Xeon since Sapphire Rapids). Pair goes after
pair, each on the core of the thread that calls, so that batches bring nothing and nothing is padded. Where lgbatch was
installed without a compiler, or for another processor, `missing` tells what is lacking.
"""

import json
import threading
from collections.abc import Mapping, Sequence
from ctypes import byref, c_float
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lgbatch.kernels.library import (
    GROUP,
    PANEL,
    WIDTH,
    DenseStruct,
    FeedForwardStruct,
    HeadStruct,
    LayerStruct,
    SideStruct,
    load_library,
    unavailable_reason,
)

Array = NDArray[Any]
_ALIGNED = 64


class Stage:
    """A file that export.quantize wrote, opened. A runtime.Session."""

    device: Literal["cpu"] = "cpu"
    inputs: list[str]
    outputs: list[str]
    widths: list[int | None]

    def __init__(self, path: Path) -> None:
        """Read it. Raises OSError, ValueError, KeyError where it is damaged, and RuntimeError where `missing`."""
        lacking, library = unavailable_reason(), load_library()
        if lacking or library is None:
            raise RuntimeError(lacking)
        self.load_library = library
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            self._arrays: dict[str, Array] = {name: arrays[name] for name in arrays.files}
        self.metadata: dict[str, str] = json.loads(str(self._arrays.pop("metadata")))
        self._kept: list[Array] = []  # what the structures point to
        self._local = threading.local()

    def _scratch(self, size: int) -> int:
        """The address of so many bytes of memory of this thread, aligned."""
        if getattr(self._local, "size", -1) < size:
            self._local.memory, self._local.size = np.empty(size + _ALIGNED, np.uint8), size
        return -(-_address(self._local.memory) // _ALIGNED) * _ALIGNED

    def _keep(self, values: Array, shape: tuple[int, ...], kind: type[np.generic]) -> int:
        """The address of an array, which is kept. Raises ValueError where its shape is another."""
        if values.shape != shape:
            raise ValueError(f"an array of shape {values.shape} instead of {shape}")
        self._kept.append(np.ascontiguousarray(values, dtype=kind))
        return _address(self._kept[-1])


class Layer(Stage):
    """A layer of LightGlue."""

    def __init__(self, path: Path) -> None:
        """As Stage."""
        super().__init__(path)
        has_self, decides = "self_block.query.bias" in self._arrays, "deciders.both.weight" in self._arrays
        sides = ["x", "lengths", *(["cosines", "sines"] if has_self else [])]
        self.inputs = [f"{name}{side}" for name in sides for side in (0, 1)]
        self.outputs = ["y0", "y1"]
        if decides:
            self.outputs += [f"{name}{side}" for side in (0, 1) for name in ("confidence", "matchability")]
        self.widths = [WIDTH, WIDTH, *[None] * (len(self.outputs) - 2)]
        self._layer = self._structure(has_self, decides)

    def run(self, feed: Mapping[str, Array]) -> Sequence[Array]:
        """As runtime.Session: x0 (B, M, W), ... in, y0 (B, M, W), ... out. Rows of padding are not computed."""
        feed = {name: np.ascontiguousarray(value) for name, value in feed.items()}
        outputs = [np.empty_like(feed[f"x{side}"]) for side in (0, 1)]
        decisions = [np.empty(feed[f"x{side}"].shape[:2], np.float32) for side in (0, 1) for _ in range(2)]
        for row, lengths in enumerate(zip(feed["lengths0"].tolist(), feed["lengths1"].tolist(), strict=True)):
            sides = []
            for side, count in enumerate(lengths):
                given = [feed.get(f"{name}{side}") for name in ("x", "cosines", "sines")]
                every = [*given, outputs[side], decisions[2 * side], decisions[2 * side + 1]]
                sides.append(SideStruct(*[None if of is None else _address(of[row]) for of in every], count))
            scratch = self._scratch(self.load_library.lgbatch_scratch(*lengths))
            self.load_library.lgbatch_layer(byref(self._layer), byref(sides[0]), byref(sides[1]), scratch)
        return [*outputs, *decisions][: len(self.outputs)]

    def _structure(self, has_self: bool, decides: bool) -> LayerStruct:
        layer = LayerStruct(has_self=has_self)
        if has_self:
            layer.self_project = self._dense(WIDTH, "self_block.query", "self_block.key", "self_block.value")
            layer.self_ffn = self._feed_forward("self_block.ffn")
        layer.cross_project = self._dense(WIDTH, "cross_block.query_key", "cross_block.value")
        layer.cross_ffn = self._feed_forward("cross_block.ffn")
        if decides:
            layer.decide = self._keep(self._arrays["deciders.both.weight"].T, (2, WIDTH), np.float32)
            layer.decide_bias = (c_float * 2)(*self._arrays["deciders.both.bias"].tolist())
        return layer

    def _feed_forward(self, name: str) -> FeedForwardStruct:
        gain, shift = (
            self._keep(self._arrays[f"{name}.norm.{part}"], (2 * WIDTH,), np.float32) for part in ("weight", "bias")
        )
        inside = self._dense(2 * WIDTH, f"{name}.inside", outs=2 * WIDTH)
        return FeedForwardStruct(inside, self._dense(2 * WIDTH, f"{name}.outside"), gain, shift)

    def _dense(self, ins: int, *names: str, outs: int = WIDTH) -> DenseStruct:
        """Products of one input with matrices (ins, outs), side by side."""
        every = outs * len(names)
        weight = np.concatenate([self._arrays[f"{name}.weight.int8"] for name in names], 1)
        begin = -128 * weight.reshape(-1, GROUP, every).sum(1, dtype=np.int32)
        scales, bias = (
            np.concatenate([self._arrays[f"{name}.{kind}"] for name in names]) for kind in ("weight.scales", "bias")
        )
        return DenseStruct(
            self._keep(_panels(weight, 4), (every // PANEL, ins // 4, PANEL, 4), np.int8),
            self._keep(begin, (ins // GROUP, every), np.int32),
            self._keep(scales, (every,), np.float32),
            self._keep(bias, (every,), np.float32),
            ins,
            every,
        )


class Head(Stage):
    """What tells matches after a layer."""

    inputs: list[str] = ["x0", "x1", "lengths0", "lengths1", "threshold"]  # noqa: RUF012
    outputs: list[str] = ["matches0", "scores"]  # noqa: RUF012
    widths: list[int | None] = [None, None]  # noqa: RUF012

    def __init__(self, path: Path) -> None:
        """As Stage."""
        super().__init__(path)
        weight, certain = _bfloat16(self._arrays["project.weight"]), self._arrays["matchability.weight"]
        self._head = HeadStruct(
            self._keep(_panels(weight, 2), (WIDTH // PANEL, WIDTH // 2, PANEL, 2), np.uint16),
            self._keep(self._arrays["project.bias"], (WIDTH,), np.float32),
            self._keep(certain[:, 0], (WIDTH,), np.float32),
            float(self._arrays["matchability.bias"][0]),
        )

    def run(self, feed: Mapping[str, Array]) -> Sequence[Array]:
        """As runtime.Session: x0 (B, M, W), ... in, matches0 (B, M) and scores (B, M) out; padding has no match."""
        x0, x1 = (np.ascontiguousarray(feed[name]) for name in ("x0", "x1"))
        matches0, scores = np.full(x0.shape[:2], -1, np.int64), np.zeros(x0.shape[:2], np.float32)
        for row, lengths in enumerate(zip(feed["lengths0"].tolist(), feed["lengths1"].tolist(), strict=True)):
            scratch = self._scratch(self.load_library.lgbatch_head_scratch(*lengths))
            places = [_address(of[row]) for of in (x0, x1, matches0, scores)]
            call = self.load_library.lgbatch_head
            call(byref(self._head), *places[:2], *lengths, float(feed["threshold"]), scratch, *places[2:])
        return [matches0, scores]


def _panels(weight: Array, several: int) -> Array:
    """A matrix (ins, outs) as (outs / PANEL, ins / several, PANEL, several)."""
    ins, outs = weight.shape
    return weight.reshape(ins // several, several, outs // PANEL, PANEL).transpose(2, 0, 3, 1)


def _bfloat16(values: Array) -> Array:
    """The upper halves of float32, rounded to the nearest, as uint16."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _address(array: Array) -> int:
    return int(array.ctypes.data)
