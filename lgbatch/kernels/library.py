"""Loads the compiled kernels with ctypes.

One file holds the kernels for several instruction sets. `chosen_isa` is the one that is used, `missing_reason` says why
there is none.
"""

import ctypes
import functools
import importlib.util
import os
from collections.abc import Callable
from ctypes import c_char_p, c_int64, c_void_p
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from lgbatch.errors import InputError
from lgbatch.kernels.processor import gains_from_int8, runs_kernels

PANEL = 64
"""A constant of kernels.h."""
ISA_VARIABLE = "LGBATCH_ISA"
"""The environment variable that names an instruction set to use instead of the fastest, or NO_KERNELS."""
NO_KERNELS = "none"
"""The value of ISA_VARIABLE with which ONNX Runtime runs everything, in fp32."""
PORTABLE = "portable"
"""Plain C, which any processor runs: the reference of the tests. It is slow, so it is never chosen."""
_REINSTALL = "run `pip install --force-reinstall --no-deps --no-cache-dir lgbatch`"
"""pip's cache keeps what it built from source, without the kernels too."""


def int8_unavailable_reason() -> str | None:
    """Why the kernels in 8 bits are not used on this machine, or None. Raises InputError as chosen_isa."""
    isa = chosen_isa()
    if isa and (os.environ.get(ISA_VARIABLE) or _isas()[isa]):
        return None
    if _turned_off():
        return f"{ISA_VARIABLE}={NO_KERNELS} turns the kernels off"
    return missing_reason() or "the processor has no instructions with which 8 bits are faster than fp32"


def missing_reason() -> str | None:
    """Why kernels are missing with which this processor would be faster, with the way out, or None.

    Raises InputError as chosen_isa.
    """
    isa = chosen_isa()
    if _turned_off():
        return None
    if runs_kernels() if isa is None else gains_from_int8() and not any(_isas().values()):
        if _library() is None:
            way_out = f"install a C compiler (GCC or Clang), then {_REINSTALL}"
            return f"lgbatch was installed without its compiled kernels: {way_out}"
        return f"its kernels were compiled by too old a compiler: install GCC 11 or Clang 19, then {_REINSTALL}"
    return None


def available_isas() -> list[str]:
    """The instruction sets that the kernels were compiled for and this machine runs, the fastest first."""
    return list(_isas())


def chosen_isa() -> str | None:
    """The instruction set that is used: the one that LGBATCH_ISA names, or the fastest. None if no kernels are used.

    Raises InputError if this machine lacks the named one.
    """
    if _turned_off():
        return None
    isas = _isas()
    forced = os.environ.get(ISA_VARIABLE)
    if forced and forced not in isas:
        known = f"this machine runs {', '.join(isas)}" if isas else "lgbatch was installed without its kernels"
        raise InputError(f"{ISA_VARIABLE}={forced} is unavailable ({known}): name another or unset it")
    return forced or next((isa for isa in isas if isa != PORTABLE), None)


def require_kernels() -> None:
    """Raise RuntimeError if there are no kernels to use, InputError as chosen_isa."""
    if chosen_isa() is None:
        raise RuntimeError(missing_reason() or "there are no kernels for this processor")


def load_function(name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    """A function of the chosen instruction set, by its name in C without prefix and suffix, with its signature.

    Raises RuntimeError as require_kernels and InputError as chosen_isa.
    """
    require_kernels()
    function = getattr(_library(), f"lgbatch_{name}_{str(chosen_isa()).replace('-', '_')}")
    function.restype, function.argtypes = result, arguments
    return cast(Callable[..., Any], function)


def two_largest(rows: NDArray[np.uint8], panels: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The largest and the second largest product of each row with the columns, (N,) each. None is negative.

    `rows` is (N, 4 S), `panels` (P, S, PANEL): each value holds four int8 values of a column, none negative. The last
    columns may be zeros. Raises RuntimeError as require_kernels.
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
    pointer, size = c_void_p, c_int64
    load_function("two_largest", None, pointer, size, size, pointer, size, pointer, pointer)(*arrays)
    return first, second


def _turned_off() -> bool:
    return os.environ.get(ISA_VARIABLE) == NO_KERNELS


def _isas() -> dict[str, bool]:
    """The instruction sets that this machine runs, the fastest first, and whether 8 bits are faster than fp32 there."""
    return _isas_of(_library())


@functools.cache
def _isas_of(library: ctypes.CDLL | None) -> dict[str, bool]:
    """Those of the compiled file. A virtual machine takes 0.2 ms to tell: the processor is asked through its host."""
    index, isas = 0, dict[str, bool]()
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
