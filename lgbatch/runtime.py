"""Runs ONNX files, on ONNX Runtime. Its only user, with devices.py."""

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import onnxruntime as ort
from numpy.typing import NDArray

from lgbatch.devices import PROVIDERS, Device, fall_back, with_options

Array = NDArray[Any]


class Session(Protocol):
    """An opened model, of a file of ONNX or of kernels.py."""

    device: Device
    """Where it runs."""
    metadata: dict[str, str]
    inputs: list[str]
    outputs: list[str]
    widths: list[int | None]
    """Length of the last axis of each output; None where it may vary."""

    def run(self, feed: Mapping[str, Array]) -> Sequence[Array]:
        """Named arrays in, outputs in order out. Safe in several threads at once; raises RuntimeError."""


class OnnxRuntime:
    """A session of ONNX Runtime."""

    def __init__(self, path: Path, device: Device, *, threads: int, shared: bool = False, side: int = 0) -> None:
        """Open; `shared` sessions take their memory from one arena. Raises what ONNX Runtime raises.

        `side` is the longest that photos have, if it is known: some devices prepare for it. Where the device cannot
        run the file, the CPU does, which one line on standard error says.
        """
        options = ort.SessionOptions()
        options.log_severity_level = 4  # what goes wrong is told by the one who opens it
        options.intra_op_num_threads = threads
        if shared:
            _share_memory()
            options.add_session_config_entry("session.use_env_allocators", "1")
        self.device = device
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

    def _open(self, path: Path, options: ort.SessionOptions, threads: int, side: int) -> ort.InferenceSession:
        """On the device, or where that cannot be on the CPU."""
        on_cpu = functools.partial(ort.InferenceSession, str(path), options, providers=[PROVIDERS["cpu"].name])
        if self.device == "cpu":
            return on_cpu()
        providers = with_options(self.device, path, threads=threads, side=side)
        options.enable_mem_pattern = self.device != "directml"  # which cannot do with it
        try:
            session = ort.InferenceSession(str(path), options, providers=providers, enable_fallback=0)
            if session.get_providers()[0] == providers[0][0]:
                return session
            reason = f"{providers[0][0]} did not start"
        except Exception as error:  # each provider has exceptions of its own
            reason = " ".join(str(error).split())[-200:]
        session = on_cpu()  # raises where it is the file that is damaged
        fall_back(path, self.device, reason)
        self.device = "cpu"
        return session


def available_cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def _share_memory() -> None:
    """Make the one arena that all stages take their memory from: each with its own takes four times as much."""
    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(memory, ort.OrtArenaCfg(0, 1, -1, -1))  # no limit; grows by what is asked for
