"""Models that run in the compiled kernels, from .npz files."""

import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lgbatch.kernels.library import require_kernels

Array = NDArray[Any]
_ALIGNMENT = 64
_scratch = threading.local()
"""The scratch buffer of each thread, for all sessions: one per stage of LightGlue would take 18 times the memory."""


class KernelSession(ABC):
    """An opened .npz file. Subclasses implement runtime.session.Session."""

    device: Literal["cpu"] = "cpu"
    inputs: list[str]
    outputs: list[str]
    widths: list[int | None]

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises OSError, ValueError or KeyError if it is damaged, and RuntimeError if the kernels are unavailable.
        """
        require_kernels()
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays: dict[str, Array] = {name: stored[name] for name in stored.files}
        self.metadata: dict[str, str] = json.loads(str(arrays.pop("metadata")))
        self._referenced: list[Array] = []  # the structs hold only addresses
        self._read(arrays)

    @abstractmethod
    def _read(self, arrays: Mapping[str, Array]) -> None:
        """Set up the session from the arrays of its file, which are not kept besides their copies for the kernels."""

    def _reference(self, values: Array, shape: tuple[int, ...], dtype: type[np.generic]) -> int:
        """Address of a contiguous copy, kept alive with the session. Raises ValueError if the shape differs."""
        if values.shape != shape:
            raise ValueError(f"an array has shape {values.shape}, expected {shape}")
        return self._keep(np.ascontiguousarray(values, dtype=dtype))

    def _keep(self, values: Array) -> int:
        """Address of an array, kept alive with the session."""
        self._referenced.append(values)
        return address(values)


def scratch_address(size: int) -> int:
    """Address of an aligned scratch buffer of `size` bytes of the calling thread, reused between calls."""
    if getattr(_scratch, "size", -1) < size:
        _scratch.buffer, _scratch.size = None, -1  # freed before the larger one is allocated
        _scratch.buffer, _scratch.size = np.empty(size + _ALIGNMENT, np.uint8), size
    return -(-address(_scratch.buffer) // _ALIGNMENT) * _ALIGNMENT


def address(array: Array) -> int:
    """Address of the first value of an array."""
    return int(array.ctypes.data)


def bfloat16(values: Array) -> Array:
    """Round numbers to bfloat16, to nearest even, as uint16 bits."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
