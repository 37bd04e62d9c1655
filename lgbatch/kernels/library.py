"""LightGlue's layers and heads in 8 and 16 bits, by what is compiled from the folder kernels/. The only user of that.

It is for processors with AVX-512 VNNI and BF16 (AMD since Zen 4, Intel Xeon since Sapphire Rapids). Pair goes after
pair, each on the core of the thread that calls, so that batches bring nothing and nothing is padded. Where lgbatch was
installed without a compiler, or for another processor, `missing` tells what is lacking.
"""

import ctypes
import functools
import importlib.util
from ctypes import POINTER, c_float, c_int64, c_size_t, c_void_p

WIDTH, GROUP, PANEL = 256, 256, 64
"""Numbers of kernels/kernels.h, as are the structures."""


class DenseStruct(ctypes.Structure):
    _fields_ = (
        ("weight", c_void_p),
        ("begin", c_void_p),
        ("scale", c_void_p),
        ("bias", c_void_p),
        ("ins", c_int64),
        ("outs", c_int64),
    )


class FeedForwardStruct(ctypes.Structure):
    _fields_ = (("inside", DenseStruct), ("outside", DenseStruct), ("gain", c_void_p), ("shift", c_void_p))


class LayerStruct(ctypes.Structure):
    _fields_ = (
        ("self_project", DenseStruct),
        ("self_ffn", FeedForwardStruct),
        ("cross_project", DenseStruct),
        ("cross_ffn", FeedForwardStruct),
        ("decide", c_void_p),
        ("decide_bias", c_float * 2),
        ("has_self", c_int64),
    )


class HeadStruct(ctypes.Structure):
    _fields_ = (("weight", c_void_p), ("bias", c_void_p), ("certain", c_void_p), ("certain_bias", c_float))


class SideStruct(ctypes.Structure):
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
    """What keeps the kernels from running here; None where nothing does."""
    library = load_library()
    if library is None:
        return "lgbatch was installed without its kernels: reinstall it where there is a C compiler"
    if not library.lgbatch_supported():
        return "the processor lacks AVX-512 VNNI or BF16"
    return None


@functools.cache
def load_library() -> ctypes.CDLL | None:
    """What was compiled from kernels/; None where nothing was."""
    spec = importlib.util.find_spec("lgbatch.kernels._kernels")
    if spec is None or spec.origin is None:
        return None
    library = ctypes.CDLL(spec.origin)
    library.lgbatch_supported.restype = c_int64
    if library.lgbatch_supported():
        pointer, count = c_void_p, c_int64
        library.lgbatch_scratch.argtypes, library.lgbatch_scratch.restype = [count, count], c_size_t
        library.lgbatch_layer.argtypes = [POINTER(LayerStruct), POINTER(SideStruct), POINTER(SideStruct), pointer]
        library.lgbatch_layer.restype = None
        library.lgbatch_head_scratch.argtypes, library.lgbatch_head_scratch.restype = [count, count], c_size_t
        library.lgbatch_head.argtypes = [POINTER(HeadStruct), *[pointer] * 2, *[count] * 2, c_float, *[pointer] * 3]
        library.lgbatch_head.restype = None
    return library
