"""LightGlue's layers in 8 bits, by the kernels of the folder kernels/. The only user of what is compiled from it.

The kernels are for processors with AVX-512 VNNI and BF16 (AMD since Zen 4, Intel Xeon since Sapphire Rapids). A layer
takes pair after pair, each on the core of the thread that calls, so that batches bring nothing and nothing is padded.
Where lgbatch was installed without a compiler, or for another processor, `available` tells what is lacking.
"""

import ctypes
import functools
import importlib.util
import json
import threading
from collections.abc import Mapping, Sequence
from ctypes import POINTER, byref, c_float, c_int64, c_size_t, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lgbatch.devices import Device

Array = NDArray[Any]
GROUP, PANEL, HEAD = 256, 64, 64
"""Numbers of kernels/kernels.h."""


class _Dense(ctypes.Structure):
    _fields_ = (
        ("weight", c_void_p),
        ("begin", c_void_p),
        ("scale", c_void_p),
        ("bias", c_void_p),
        ("ins", c_int64),
        ("outs", c_int64),
    )


class _FeedForward(ctypes.Structure):
    _fields_ = (("inside", _Dense), ("outside", _Dense), ("gain", c_void_p), ("shift", c_void_p))


class _Layer(ctypes.Structure):
    _fields_ = (
        ("self_project", _Dense),
        ("self_ffn", _FeedForward),
        ("cross_project", _Dense),
        ("cross_ffn", _FeedForward),
        ("decide", c_void_p),
        ("decide_bias", c_float * 2),
        ("width", c_int64),
        ("has_self", c_int64),
    )


class _Side(ctypes.Structure):
    _fields_ = (
        ("x", c_void_p),
        ("cosines", c_void_p),
        ("sines", c_void_p),
        ("y", c_void_p),
        ("confidence", c_void_p),
        ("matchability", c_void_p),
        ("count", c_int64),
    )


def missing() -> str | None:
    """What keeps the kernels from running here; None where nothing does."""
    library = _library()
    if library is None:
        return "lgbatch was installed without its kernels: reinstall it where there is a C compiler"
    if not library.lgbatch_supported():
        return "the processor lacks AVX-512 VNNI or BF16"
    return None


class Layer:
    """A layer of LightGlue, from a file that export.quantize wrote. A runtime.Session."""

    device: Device = "cpu"

    def __init__(self, path: Path) -> None:
        """Read it. Raises OSError, ValueError, KeyError where it is damaged, and RuntimeError where `missing`."""
        lacking, library = missing(), _library()
        if lacking or library is None:
            raise RuntimeError(lacking)
        self._call, self._bytes = library.lgbatch_layer, library.lgbatch_scratch
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            self._arrays: dict[str, Array] = {name: arrays[name] for name in arrays.files}
        self.metadata: dict[str, str] = json.loads(str(self._arrays.pop("metadata")))
        has_self, decides = "self_block.query.bias" in self._arrays, "deciders.both.weight" in self._arrays
        sides = ["x", "lengths", *(["cosines", "sines"] if has_self else [])]
        self.inputs = [f"{name}{side}" for name in sides for side in (0, 1)]
        self.outputs = ["y0", "y1"]
        if decides:
            self.outputs += [f"{name}{side}" for side in (0, 1) for name in ("confidence", "matchability")]
        width = len(self._arrays["cross_block.value.bias"])
        if width != GROUP:
            raise ValueError(f"the kernels are for layers of {GROUP} numbers, not {width}")
        self.widths: list[int | None] = [width, width, *[None] * (len(self.outputs) - 2)]
        self._kept: list[Array] = []  # what the structure points to
        self._layer = self._structure(has_self, decides, width)
        self._local = threading.local()

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
                sides.append(_Side(*[None if of is None else _address(of[row]) for of in every], count))
            self._call(byref(self._layer), byref(sides[0]), byref(sides[1]), self._scratch(*lengths))
        return [*outputs, *decisions][: len(self.outputs)]

    def _scratch(self, count0: int, count1: int) -> int:
        """The address of enough memory, aligned, of this thread."""
        size = int(self._bytes(count0, count1, GROUP)) + 64
        if getattr(self._local, "size", 0) < size:
            self._local.memory, self._local.size = np.empty(size, np.uint8), size
        return -(-_address(self._local.memory) // 64) * 64

    def _structure(self, has_self: bool, decides: bool, width: int) -> _Layer:
        layer = _Layer(width=width, has_self=has_self)
        if has_self:
            layer.self_project = self._dense(GROUP, "self_block.query", "self_block.key", "self_block.value")
            layer.self_ffn = self._feed_forward("self_block.ffn")
        layer.cross_project = self._dense(GROUP, "cross_block.query_key", "cross_block.value")
        layer.cross_ffn = self._feed_forward("cross_block.ffn")
        if decides:
            layer.decide = self._keep(self._arrays["deciders.both.weight"].T, (2, GROUP), np.float32)
            layer.decide_bias = (c_float * 2)(*self._arrays["deciders.both.bias"].tolist())
        return layer

    def _feed_forward(self, name: str) -> _FeedForward:
        gain, shift = (
            self._keep(self._arrays[f"{name}.norm.{part}"], (2 * GROUP,), np.float32) for part in ("weight", "bias")
        )
        inside, outside = (
            self._dense(2 * GROUP, f"{name}.inside", outs=2 * GROUP),
            self._dense(2 * GROUP, f"{name}.outside"),
        )
        return _FeedForward(inside, outside, gain, shift)

    def _dense(self, ins: int, *names: str, outs: int = GROUP) -> _Dense:
        """Products of one input with matrices (ins, outs), side by side."""
        every = outs * len(names)
        weight = np.concatenate([self._arrays[f"{name}.weight.int8"] for name in names], 1)
        panels = weight.reshape(ins // 4, 4, every // PANEL, PANEL).transpose(2, 0, 3, 1)
        begin = -128 * weight.reshape(-1, GROUP, every).sum(1, dtype=np.int32)
        scales, bias = (
            np.concatenate([self._arrays[f"{name}.{kind}"] for name in names]) for kind in ("weight.scales", "bias")
        )
        return _Dense(
            self._keep(panels, (every // PANEL, ins // 4, PANEL, 4), np.int8),
            self._keep(begin, (ins // GROUP, every), np.int32),
            self._keep(scales, (every,), np.float32),
            self._keep(bias, (every,), np.float32),
            ins,
            every,
        )

    def _keep(self, values: Array, shape: tuple[int, ...], kind: type[np.generic]) -> int:
        """The address of an array, which is kept. Raises ValueError where its shape is another."""
        if values.shape != shape:
            raise ValueError(f"an array of shape {values.shape} instead of {shape}")
        self._kept.append(np.ascontiguousarray(values, dtype=kind))
        return _address(self._kept[-1])


def _address(array: Array) -> int:
    return int(array.ctypes.data)


@functools.cache
def _library() -> ctypes.CDLL | None:
    """What was compiled from kernels/; None where nothing was."""
    spec = importlib.util.find_spec("lgbatch._kernels")
    if spec is None or spec.origin is None:
        return None
    library = ctypes.CDLL(spec.origin)
    library.lgbatch_supported.restype = c_int64
    if library.lgbatch_supported():
        library.lgbatch_scratch.argtypes, library.lgbatch_scratch.restype = [c_int64] * 3, c_size_t
        library.lgbatch_layer.argtypes = [POINTER(_Layer), POINTER(_Side), POINTER(_Side), c_void_p]
        library.lgbatch_layer.restype = None
    return library
