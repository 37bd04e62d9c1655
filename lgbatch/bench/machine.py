"""The machine that a benchmark runs on: its description, its matrix rate, and memory use."""

import importlib.util
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnxruntime as ort

from lgbatch.runtime.devices import choose_device, matching_device
from lgbatch.runtime.environment import available_cores

Result = TypeVar("Result")

SIZE = 2048
"""Rows and columns of the matrices."""
_PRODUCTS = 5


def describe() -> dict[str, Any]:
    """Return the processor, the number of cores and the operating system."""
    return {"cpu": _cpu(), "cores": available_cores(), "system": platform.platform()}


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


class MatrixRate:
    """Measures the rate of ONNX Runtime's float32 matrix product, on all cores: a yardstick for the engines."""

    def __init__(self, device: str, threads: int) -> None:
        """Build a model of one MatMul of SIZE x SIZE. Raises ImportError if the package onnx is not installed."""
        from onnx import TensorProto, helper, numpy_helper

        values = np.random.default_rng(0).random((SIZE, SIZE), dtype=np.float32)
        a, c = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [SIZE, SIZE]) for name in "ac")
        node, weight = helper.make_node("MatMul", ["a", "b"], ["c"]), numpy_helper.from_array(values, "b")
        graph = helper.make_graph([node], "rate", [a], [c], [weight])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        device = matching_device(choose_device(device))
        cuda = ["CUDAExecutionProvider"] if device == "cuda" else []
        self._session = ort.InferenceSession(
            model.SerializeToString(), options, providers=[*cuda, "CPUExecutionProvider"]
        )
        self._binding = self._session.io_binding()
        self._binding.bind_ortvalue_input("a", ort.OrtValue.ortvalue_from_numpy(values, device, 0))
        self._binding.bind_output("c", device, 0)

    def measure(self) -> float:
        """Return the median rate of a few products in GFLOP/s."""
        seconds = []
        for _ in range(_PRODUCTS):
            start = time.perf_counter()
            self._session.run_with_iobinding(self._binding)
            self._binding.synchronize_outputs()
            seconds.append(time.perf_counter() - start)
        return float(2e-9 * SIZE**3 / np.median(seconds))


def matrix_rate(device: str, threads: int) -> MatrixRate | None:
    """Prepare the measurement, or return None if the package onnx (of `lgbatch[export]`) is not installed."""
    return MatrixRate(device, threads) if importlib.util.find_spec("onnx") else None


def measure_memory(work: Callable[[], Result]) -> tuple[Result, float | None]:
    """Call `work`. Returns its result and the growth of the peak resident memory in MB, None if not on Linux."""
    before = _reset_peak()
    result = work()
    peak = None if before is None else _status("VmHWM")
    return result, None if before is None or peak is None else round(max(0.0, peak - before), 1)


def _reset_peak() -> float | None:
    """Reset the kernel's peak counter. Returns the present resident memory in MB, None if not on Linux."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return _status("VmRSS")


def _status(key: str) -> float | None:
    """Read a size from /proc/self/status, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1024
    return None
