"""Loads the compiled kernels with ctypes and mirrors the structs of kernels.h.

The kernels need AVX-512 VNNI and BF16 (AMD since Zen 4, Intel Xeon since Sapphire Rapids). `unavailable_reason` says
why they cannot run.
"""

import ctypes
import functools
import importlib.util
from ctypes import POINTER, c_float, c_int64, c_size_t, c_void_p

import numpy as np
from numpy.typing import NDArray

EMBED_DIM, GROUP, PANEL = 256, 256, 64
"""Constants of kernels.h. The structs below must match it too, field by field."""


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


def unavailable_reason() -> str | None:
    """Why the kernels cannot run on this machine, or None."""
    library = load_library()
    if library is None:
        return "lgbatch was installed without its kernels: install a C compiler and reinstall lgbatch"
    if not library.lgbatch_supported():
        return "the processor lacks AVX-512 VNNI or BF16"
    return None


def two_largest(rows: NDArray[np.uint8], panels: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The largest and the second largest product of each row with the columns, (N,) each. None is negative.

    `rows` is (N, 4 S), `panels` (P, S, PANEL): each value holds four int8 values of a column. The last columns may be
    zeros. Only if the kernels can run.
    """
    library, (count, steps, _) = load_library(), panels.shape
    assert library is not None
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
    library.lgbatch_two_largest(*arrays)
    return first, second


@functools.cache
def load_library() -> ctypes.CDLL | None:
    """The compiled kernels, or None if lgbatch was installed without them."""
    spec = importlib.util.find_spec("lgbatch.kernels._kernels")
    if spec is None or spec.origin is None:
        return None
    library = ctypes.CDLL(spec.origin)
    library.lgbatch_supported.restype = c_int64
    if library.lgbatch_supported():
        _declare(library)
    return library


def _declare(library: ctypes.CDLL) -> None:
    """Declare the signatures of kernels.h."""
    pointer, count = c_void_p, c_int64
    layer, head = library.lgbatch_layer, library.lgbatch_head
    layer.argtypes = [POINTER(LayerStruct), POINTER(SideStruct), POINTER(SideStruct), pointer]
    head.argtypes = [POINTER(HeadStruct), *[pointer] * 2, *[count] * 2, c_float, *[pointer] * 3]
    layer.restype = head.restype = None
    library.lgbatch_two_largest.argtypes = [pointer, count, count, pointer, count, pointer, pointer]
    library.lgbatch_two_largest.restype = None
    library.lgbatch_layer_scratch_bytes.argtypes = [count, count]
    library.lgbatch_head_scratch_bytes.argtypes = [count, count, c_float]
    library.lgbatch_layer_scratch_bytes.restype = library.lgbatch_head_scratch_bytes.restype = c_size_t
