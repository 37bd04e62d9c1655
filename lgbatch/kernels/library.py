"""Loads the compiled kernels with ctypes and mirrors the structs of kernels.h.

One file holds the kernels for several instruction sets. `chosen_isa` is the one that is used, `unavailable_reason` says
why there is none.
"""

import ctypes
import functools
import importlib.util
import os
from collections.abc import Callable
from ctypes import POINTER, c_char_p, c_float, c_int64, c_size_t, c_void_p
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lgbatch.errors import InputError

EMBED_DIM, GROUP, PANEL = 256, 256, 64
"""Constants of kernels.h. The structs below must match it too, field by field."""
ISA_VARIABLE = "LGBATCH_ISA"
"""The environment variable that names an instruction set to use instead of the fastest."""
PORTABLE = "portable"
"""Plain C, which any processor runs: the reference of the tests. It is slower than fp32, so it is never chosen."""


class DenseStruct(ctypes.Structure):
    """x W + b with an int8 weight."""

    _fields_ = (
        ("weight", c_void_p),
        ("zero_point_sum", c_void_p),
        ("scale", c_void_p),
        ("bias", c_void_p),
        ("in_dim", c_int64),
        ("out_dim", c_int64),
    )


class FeedForwardStruct(ctypes.Structure):
    """Two dense layers with layer normalization and GELU in between."""

    _fields_ = (
        ("linear1", DenseStruct),
        ("linear2", DenseStruct),
        ("norm_weight", c_void_p),
        ("norm_bias", c_void_p),
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
        ("projection_weight", c_void_p),
        ("projection_bias", c_void_p),
        ("matchability_weight", c_void_p),
        ("matchability_bias", c_float),
    )


class SideStruct(ctypes.Structure):
    """Inputs and outputs of a layer for one image of a pair."""

    _fields_ = (
        ("x", c_void_p),
        ("cosines", c_void_p),
        ("sines", c_void_p),
        ("y", c_void_p),
        ("confidence", c_void_p),
        ("matchability", c_void_p),
        ("count", c_int64),
    )


class Kernels(NamedTuple):
    """The functions of kernels.h for one instruction set, and its name."""

    isa: str
    layer_scratch_bytes: Callable[..., int]
    layer: Callable[..., None]
    head_scratch_bytes: Callable[..., int]
    head: Callable[..., None]
    two_largest: Callable[..., None]


def unavailable_reason() -> str | None:
    """Why the kernels cannot run on this machine, or None. Raises InputError as chosen_isa."""
    if _library() is None:
        return "lgbatch was installed without its kernels: install a C compiler and reinstall lgbatch"
    if chosen_isa() is None:
        return "the processor has no instructions with which 8 bits are faster than fp32"
    return None


def available_isas() -> list[str]:
    """The instruction sets that the kernels were compiled for and this machine runs, the fastest first."""
    return list(_isas())


def chosen_isa() -> str | None:
    """The instruction set that is used: the one that LGBATCH_ISA names, or the fastest. None if fp32 is faster.

    Raises InputError if this machine lacks the named one.
    """
    isas = _isas()
    forced = os.environ.get(ISA_VARIABLE)
    if forced and forced not in isas:
        known = f"this machine runs {', '.join(isas)}" if isas else "lgbatch was installed without its kernels"
        raise InputError(f"{ISA_VARIABLE}={forced} is unavailable ({known}): name another or unset it")
    return forced or next((isa for isa, beats_fp32 in isas.items() if beats_fp32), None)


def load_kernels() -> Kernels:
    """The kernels of the chosen instruction set. Raises RuntimeError if there are none, InputError as chosen_isa."""
    if reason := unavailable_reason():
        raise RuntimeError(reason)
    return _declare(str(chosen_isa()))


def two_largest(rows: NDArray[np.uint8], panels: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The largest and the second largest product of each row with the columns, (N,) each. None is negative.

    `rows` is (N, 4 S), `panels` (P, S, PANEL): each value holds four int8 values of a column, none negative. The last
    columns may be zeros. Raises RuntimeError as load_kernels.
    """
    count, steps, _ = panels.shape
    first, second = np.empty(len(rows), np.int32), np.empty(len(rows), np.int32)
    arrays = (
        rows.ctypes.data,
        len(rows),
        steps,
        panels.ctypes.data,
        count * PANEL,
        first.ctypes.data,
        second.ctypes.data,
    )
    load_kernels().two_largest(*arrays)
    return first, second


def _isas() -> dict[str, bool]:
    """The instruction sets that this machine runs, the fastest first, and whether they are faster than fp32 here."""
    library, index, isas = _library(), 0, dict[str, bool]()
    while library and (name := library.lgbatch_isa_name(index)):
        if library.lgbatch_isa_runs(index):
            isas[name.decode()] = bool(library.lgbatch_isa_beats_fp32(index))
        index += 1
    return isas


@functools.cache
def _library() -> ctypes.CDLL | None:
    """The compiled file, or None if lgbatch was installed without it."""
    spec = importlib.util.find_spec("lgbatch.kernels._kernels")
    if spec is None or spec.origin is None:
        return None
    library = ctypes.CDLL(spec.origin)
    for name, result in (("name", c_char_p), ("runs", c_int64), ("beats_fp32", c_int64)):
        function = getattr(library, f"lgbatch_isa_{name}")
        function.argtypes, function.restype = [c_int64], result
    return library


@functools.cache
def _declare(isa: str) -> Kernels:
    """The functions of an instruction set, with the signatures of kernels.h."""
    pointer, count = c_void_p, c_int64

    def function(name: str, result: Any, *arguments: Any) -> Any:
        found = getattr(_library(), f"lgbatch_{name}_{isa.replace('-', '_')}")
        found.restype, found.argtypes = result, arguments
        return found

    return Kernels(
        isa,
        function("layer_scratch_bytes", c_size_t, count, count),
        function("layer", None, POINTER(LayerStruct), POINTER(SideStruct), POINTER(SideStruct), pointer),
        function("head_scratch_bytes", c_size_t, count, count, c_float),
        function("head", None, POINTER(HeadStruct), *[pointer] * 2, *[count] * 2, c_float, *[pointer] * 3),
        function("two_largest", None, pointer, count, count, pointer, count, pointer, pointer),
    )
