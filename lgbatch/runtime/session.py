"""Sessions of ONNX Runtime, on the host and with tensors that stay on the device."""

import contextlib
import ctypes
import functools
import math
import sys
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from lgbatch.runtime.devices import (
    NVIDIA,
    PROVIDERS,
    Device,
    has_failed,
    provider_failed,
    unavailable_reason,
    warn_cpu_fallback,
)
from lgbatch.runtime.providers import provider_options

Array = NDArray[Any]
_ALLOCATORS = {"cpu": "Cpu", "cuda": "Cuda"}
"""ONNX Runtime's names of the memory that stages share. The other devices run extractors only."""
_NO_PROVIDER = (".so", ".dll", "LoadLibrary", "able to be loaded", "Provider not available")
"""Parts of the errors of a provider whose libraries cannot be loaded. Any other error is one of the model."""


class Tensor(Protocol):
    """A tensor on a device: the part of ONNX Runtime's OrtValue that is used here."""

    def shape(self) -> list[int]:
        """Return the shape."""

    def data_ptr(self) -> int:
        """Return the address on the device."""

    def numpy(self) -> Array:
        """Return a copy on the host."""


class Session(Protocol):
    """An opened model: an ONNX file, or a file of weights for lgbatch.kernels."""

    @property
    def device(self) -> Device:
        """The device that runs the model."""

    metadata: dict[str, str]
    inputs: list[str]
    outputs: list[str]
    widths: list[int | None]
    """Length of the last axis of each output, or None if it is dynamic."""

    def run(self, feed: Mapping[str, Array]) -> Sequence[Array]:
        """Run the model and return its outputs in order. Thread-safe. Raises RuntimeError if the run fails."""


class OnnxSession:
    """A session of ONNX Runtime."""

    def __init__(
        self,
        path: Path,
        device: Device,
        *,
        threads: int,
        shared_arena: bool = False,
        max_side: int = 0,
        device_id: int = 0,
    ) -> None:
        """Open an ONNX file. If the device cannot run it, warn and use the CPU.

        After a provider has failed to start, its device is not tried again.

        Sessions with `shared_arena` allocate from one memory arena per device. `max_side` is the maximum long side of
        photos in pixels, 0 if unknown; TensorRT optimises for it. `device_id` selects the GPU.

        Raises exceptions of ONNX Runtime.
        """
        options = ort.SessionOptions()
        options.log_severity_level = 4  # the caller reports errors
        options.intra_op_num_threads = threads
        if shared_arena:
            _create_shared_arena("cpu", 0)
            options.add_session_config_entry("session.use_env_allocators", "1")
        self.device, self._device_id, self._shared_arena = device, device_id, shared_arena
        self._session = self._open(path, options, threads, max_side)
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        self.inputs = [slot.name for slot in self._session.get_inputs()]
        self.outputs = [slot.name for slot in self._session.get_outputs()]
        shapes = [slot.shape for slot in self._session.get_outputs()]
        slots = (*self._session.get_inputs(), *self._session.get_outputs())
        self.half = frozenset(slot.name for slot in slots if slot.type == "tensor(float16)")
        """Inputs and outputs in half precision."""
        self.widths = [shape[-1] if shape and isinstance(shape[-1], int) else None for shape in shapes]

    def run(self, feed: Mapping[str, Array]) -> Sequence[Array]:
        """Run the model; see Session.run."""
        outputs: Sequence[Array] = self._session.run(None, dict(feed))
        return outputs

    def run_bound(self, feed: Mapping[str, Array | Tensor], on_device: Container[str]) -> list[Array | Tensor]:
        """Run with inputs on the host or the device. Outputs named in `on_device` stay there as tensors."""
        binding = self._bind_inputs(feed)
        for name in self.outputs:
            location = (self.device, self._device_id) if name in on_device else ("cpu", 0)
            binding.bind_output(name, *location)
        self._session.run_with_iobinding(binding)
        values: Sequence[Tensor] = binding.get_outputs()
        return [value if name in on_device else value.numpy() for name, value in zip(self.outputs, values, strict=True)]

    def run_into(
        self, feed: Mapping[str, Array | Tensor], outputs: Mapping[str, Tensor], start: int, items: int
    ) -> None:
        """Run and write the outputs, (items, ...), into rows `start` to `start + items` of device tensors."""
        binding = self._bind_inputs(feed)
        for name, tensor in outputs.items():
            _, *inner = tensor.shape()
            number = self.number(name)
            address = tensor.data_ptr() + number.itemsize * start * math.prod(inner)
            binding.bind_output(name, self.device, self._device_id, number, [items, *inner], address)
        self._session.run_with_iobinding(binding)

    def empty(self, name: str, shape: Sequence[int]) -> Tensor:
        """Return an uninitialised tensor on the device, for the output `name`."""
        tensor: Tensor = ort.OrtValue.ortvalue_from_shape_and_type(
            shape, self.number(name), self.device, self._device_id
        )
        return tensor

    def number(self, name: str) -> np.dtype[np.floating]:
        """Return the type of an input or output of real numbers: float32 or float16."""
        return np.dtype(np.float16 if name in self.half else np.float32)

    def shrink(self, feed: Mapping[str, Array]) -> None:
        """Run, then return the unused memory of the arena to the device. Otherwise an arena never shrinks."""
        options = ort.RunOptions()
        arena = f"{'cpu' if self.device == 'cpu' else 'gpu'}:{self._device_id}"
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", arena)
        self._session.run(None, dict(feed), options)

    def _bind_inputs(self, feed: Mapping[str, Array | Tensor]) -> Any:
        """Bind the inputs. ONNX Runtime copies arrays to the device; entries that are no inputs are ignored."""
        binding = self._session.io_binding()
        for name in self.inputs:
            value = feed[name]
            if isinstance(value, np.ndarray):
                binding.bind_cpu_input(name, np.ascontiguousarray(value))
            else:
                binding.bind_ortvalue_input(name, value)
        return binding

    def _open(self, path: Path, options: ort.SessionOptions, threads: int, max_side: int) -> ort.InferenceSession:
        """Open on the device, or on the CPU if that fails."""
        reason = None
        if self.device != "cpu" and not has_failed(self.device):
            session, reason = self._open_on_device(path, options, threads, max_side)
            if session is not None:
                return session
        # A plan of the memory of a shape takes as much again at the second run, and saves no time (measured).
        options.enable_mem_pattern = self._shared_arena
        session = ort.InferenceSession(str(path), options, providers=[PROVIDERS["cpu"].name])
        if reason:  # only now: if the file itself is damaged, the CPU has raised
            warn_cpu_fallback(path.name, self.device, reason)
        self.device, self._device_id = "cpu", 0
        return session

    def _open_on_device(
        self, path: Path, options: ort.SessionOptions, threads: int, max_side: int
    ) -> tuple[ort.InferenceSession | None, str | None]:
        """Return the session, or None and why the device cannot run this model; no reason if its provider failed."""
        ort.set_default_logger_severity(4)  # a provider that does not start is told in one line
        providers = provider_options(self.device, path, threads=threads, max_side=max_side, device_id=self._device_id)
        options.enable_mem_pattern = self.device != "directml"  # DirectML does not support it
        try:
            if self.device in NVIDIA:
                _load_cudnn()
            if self._shared_arena:
                _create_shared_arena(self.device, self._device_id)
            session = ort.InferenceSession(str(path), options, providers=providers, enable_fallback=0)
        except Exception as error:  # each provider has its own exceptions
            reason = " ".join(str(error).split())[-200:]
            if not any(text in reason for text in _NO_PROVIDER):
                return None, reason
        else:
            if session.get_providers()[0] == providers[0][0]:
                return session, None
        provider_failed(self.device)
        return None, None


def find_cuda_libraries() -> None:
    """Make the NVIDIA devices unavailable, without a warning, if their libraries cannot be loaded."""
    if unavailable_reason("cuda"):
        return
    ort.set_default_logger_severity(4)
    try:
        _load_cudnn()
        _create_shared_arena("cuda", 0)
    except Exception as error:
        if any(text in str(error) for text in _NO_PROVIDER):
            for device in NVIDIA:
                provider_failed(device, warn=False)


@functools.cache
def _load_cudnn() -> None:
    """Load cuDNN, which ONNX Runtime's CUDA provider looks for in the first run only. Raises OSError without it."""
    names = ("cudnn64_9.dll",) if sys.platform == "win32" else ("libcudnn.so.9", "libcudnn.so")
    for name in names[:-1]:
        with contextlib.suppress(OSError):
            ctypes.CDLL(name)
            return
    ctypes.CDLL(names[-1])


@functools.cache
def _create_shared_arena(device: Device, device_id: int) -> None:
    """Create the memory arena that all stages on a device share. One arena per stage needs four times the memory."""
    kind = ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    memory = ort.OrtMemoryInfo(_ALLOCATORS[device], kind, device_id, ort.OrtMemType.DEFAULT)
    arena = ort.OrtArenaCfg(0, 1, -1, -1)  # no limit; grows by the requested size
    ort.create_and_register_allocator_v2(PROVIDERS[device].name, memory, {}, arena)
