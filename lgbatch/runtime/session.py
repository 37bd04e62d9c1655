"""Runs ONNX files, on ONNX Runtime. Its only user, with devices.py."""

import functools
import math
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from lgbatch.runtime.devices import PROVIDERS, Device, fall_back
from lgbatch.runtime.providers import provider_options

Array = NDArray[Any]
ARENA = {"cpu": "Cpu", "cuda": "Cuda"}
"""Names of the memories that stages share. Others than these devices run extractors alone."""


class Tensor(Protocol):
    """Numbers on a device: what is used of ONNX Runtime's OrtValue."""

    def shape(self) -> list[int]:
        """Lengths of its axes."""

    def data_ptr(self) -> int:
        """Its address on the device."""

    def numpy(self) -> Array:
        """A copy on the host."""


class Session(Protocol):
    """An opened model, of a file of ONNX or of kernels.py."""

    @property
    def device(self) -> Device:
        """Where the model runs."""

    metadata: dict[str, str]
    inputs: list[str]
    outputs: list[str]
    widths: list[int | None]
    """Length of the last axis of each output; None where it may vary."""

    def run(self, feed: Mapping[str, Array]) -> Sequence[Array]:
        """Named arrays in, outputs in order out. Safe in several threads at once; raises RuntimeError."""


class OnnxSession:
    """A session of ONNX Runtime."""

    def __init__(
        self, path: Path, device: Device, *, threads: int, shared: bool = False, side: int = 0, number: int = 0
    ) -> None:
        """Open; `shared` sessions take their memory from one arena. Raises what ONNX Runtime raises.

        `number` is the device's among those of its kind. `side` is the longest that photos have, if it is known: some
        devices prepare for it. Where the device cannot run the file, the CPU does, which one line on standard error
        says.
        """
        options = ort.SessionOptions()
        options.log_severity_level = 4  # what goes wrong is told by the one who opens it
        options.intra_op_num_threads = threads
        if shared:
            _share_memory("cpu", 0)
            options.add_session_config_entry("session.use_env_allocators", "1")
        self.device, self._number, self._shared = device, number, shared
        self._session = self._open(path, options, threads, side)
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        self.inputs = [slot.name for slot in self._session.get_inputs()]
        self.outputs = [slot.name for slot in self._session.get_outputs()]
        shapes = [slot.shape for slot in self._session.get_outputs()]
        self.widths = [shape[-1] if shape and isinstance(shape[-1], int) else None for shape in shapes]

    def run(self, feed: Mapping[str, Array]) -> Sequence[Array]:
        """See Session."""
        outputs: Sequence[Array] = self._session.run(None, dict(feed))
        return outputs

    def run_bound(self, feed: Mapping[str, Array | Tensor], stay: Container[str]) -> list[Array | Tensor]:
        """As `run`; inputs may be on the device, and outputs whose names are in `stay` are left there."""
        binding = self._bound(feed)
        for name in self.outputs:
            where = (self.device, self._number) if name in stay else ("cpu", 0)
            binding.bind_output(name, *where)
        self._session.run_with_iobinding(binding)
        made: Sequence[Tensor] = binding.get_outputs()
        return [value if name in stay else value.numpy() for name, value in zip(self.outputs, made, strict=True)]

    def run_into(
        self, feed: Mapping[str, Array | Tensor], outputs: Mapping[str, Tensor], start: int, items: int
    ) -> None:
        """Run, and write what comes out, float32 of so many items (B, ...), into tensors from their item `start` on."""
        binding = self._bound(feed)
        for name, tensor in outputs.items():
            _, *inner = tensor.shape()
            address = tensor.data_ptr() + 4 * start * math.prod(inner)
            binding.bind_output(name, self.device, self._number, np.float32, [items, *inner], address)
        self._session.run_with_iobinding(binding)

    def empty(self, shape: Sequence[int]) -> Tensor:
        """A float32 tensor on the device, of whatever is there."""
        made: Tensor = ort.OrtValue.ortvalue_from_shape_and_type(shape, np.float32, self.device, self._number)
        return made

    def shrink(self, feed: Mapping[str, Array]) -> None:
        """Run, then give back to the device what of the shared memory is in no use: an arena keeps all it ever took."""
        options = ort.RunOptions()
        arena = f"{'cpu' if self.device == 'cpu' else 'gpu'}:{self._number}"
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", arena)
        self._session.run(None, dict(feed), options)

    def _bound(self, feed: Mapping[str, Array | Tensor]) -> Any:
        """Inputs, bound where they are; arrays are copied to the device by the run. Those it does not take are left."""
        binding = self._session.io_binding()
        for name in self.inputs:
            value = feed[name]
            if isinstance(value, np.ndarray):
                binding.bind_cpu_input(name, np.ascontiguousarray(value))
            else:
                binding.bind_ortvalue_input(name, value)
        return binding

    def _open(self, path: Path, options: ort.SessionOptions, threads: int, side: int) -> ort.InferenceSession:
        """On the device, or where that cannot be on the CPU."""
        on_cpu = functools.partial(ort.InferenceSession, str(path), options, providers=[PROVIDERS["cpu"].name])
        if self.device == "cpu":
            return on_cpu()
        providers = provider_options(self.device, path, threads=threads, side=side, number=self._number)
        options.enable_mem_pattern = self.device != "directml"  # which cannot do with it
        try:
            if self._shared:
                _share_memory(self.device, self._number)
            session = ort.InferenceSession(str(path), options, providers=providers, enable_fallback=0)
            if session.get_providers()[0] == providers[0][0]:
                return session
            reason = f"{providers[0][0]} did not start"
        except Exception as error:  # each provider has exceptions of its own
            reason = " ".join(str(error).split())[-200:]
        session = on_cpu()  # raises where it is the file that is damaged
        fall_back(path, self.device, reason)
        self.device, self._number = "cpu", 0
        return session


@functools.cache
def _share_memory(device: Device, number: int) -> None:
    """Make the one arena of a device that all stages take memory from: each with its own takes four times as much."""
    kind = ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    memory = ort.OrtMemoryInfo(ARENA[device], kind, number, ort.OrtMemType.DEFAULT)
    arena = ort.OrtArenaCfg(0, 1, -1, -1)  # no limit; grows by what is asked for
    ort.create_and_register_allocator_v2(PROVIDERS[device].name, memory, {}, arena)
