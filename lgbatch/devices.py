"""Where models can run: the providers of ONNX Runtime, what each needs, and what is taken where it is not there.

The networks that find keypoints are mostly convolutions, which providers are made for. LightGlue is told the lengths
of what it attends to (the operator Attention of opset 24), which OpenVINO's provider refuses (1.24.1), and the others
have not been tried with: besides CUDA, matching runs on the CPU.
"""

import ctypes
import ctypes.util
import functools
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnxruntime as ort

Device = Literal["cpu", "cuda", "tensorrt", "openvino", "coreml", "directml"]


@dataclass(frozen=True)
class Provider:
    """Of ONNX Runtime."""

    name: str
    source: str
    """What brings it."""


PROVIDERS: dict[Device, Provider] = {
    "cpu": Provider("CPUExecutionProvider", "install onnxruntime"),
    "cuda": Provider("CUDAExecutionProvider", "install onnxruntime-gpu"),
    "tensorrt": Provider("TensorrtExecutionProvider", "install onnxruntime-gpu and tensorrt-cu13"),
    "openvino": Provider("OpenVINOExecutionProvider", "install onnxruntime-openvino in the place of onnxruntime-gpu"),
    "coreml": Provider("CoreMLExecutionProvider", "it is in onnxruntime for macOS"),
    "directml": Provider(
        "DmlExecutionProvider", "on Windows, install onnxruntime-directml in the place of onnxruntime-gpu"
    ),
}
NVIDIA = ("cuda", "tensorrt")
BATCH: Mapping[Device, int] = {"cuda": 8, "tensorrt": 8}
"""Photos in one batch, where it is not one: on CPU more are no faster (measured), and take more memory."""

UNFIT: Mapping[Device, Sequence[str]] = {"openvino": ("aliked",)}
"""Families whose keypoints come out wrong (onnxruntime-openvino 1.24.1: rounded to whole pixels)."""

_LEAST, _USUAL = (1, 32, 32), (BATCH["tensorrt"], 768, 1024)
"""Photos, height and width that TensorRT prepares for."""


def choose(device: str) -> Device:
    """Where to run for --device; where that cannot be, another, which one line on standard error says once."""
    found, lacking = find(device)
    if lacking:
        _say(f"--device {device}: {lacking}; using {_named(found)}")
    return found


def for_matching(device: Device) -> Device:
    """Where LightGlue runs when the rest runs on `device`."""
    if device in NVIDIA:
        return "cuda"
    return "cpu"


def find(device: str) -> tuple[Device, str | None]:
    """As `choose`, and what was lacking, without saying it. Others than CUDA and the CPU are taken by name alone."""
    if device == "auto":
        return "cpu" if missing("cuda") else "cuda", None
    wanted = next(one for one in PROVIDERS if one == device)
    lacking = missing(wanted)
    if not lacking:
        return wanted, None
    return ("cuda" if wanted == "tensorrt" and not missing("cuda") else "cpu"), lacking


@functools.cache
def missing(device: Device) -> str | None:
    """What keeps models from running on a device; None where nothing does that can be told beforehand."""
    provider = PROVIDERS[device]
    if provider.name not in ort.get_available_providers():
        return f"this ONNX Runtime has no {provider.name} ({provider.source})"
    if device in NVIDIA and not gpus():
        return "no NVIDIA GPU was found"
    if device == "tensorrt" and not _has_tensorrt():
        return f"TensorRT's libraries were not found ({provider.source})"
    if device in NVIDIA and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    return None


def with_options(
    device: Device, path: Path, *, threads: int, side: int, number: int = 0
) -> list[tuple[str, dict[str, Any]]]:
    """The providers of a session on a device other than the CPU, best first, with their options.

    `side` is the longest that photos have, 0 where nobody knows; `number` is the GPU's, where it is CUDA alone. What a
    provider makes of a model is kept in a folder beside it.
    """
    kept = str(path.parent / device)
    options: dict[Device, dict[str, Any]] = {
        "cuda": {"device_id": str(number)},
        "tensorrt": {
            "trt_engine_cache_enable": True,
            "trt_engine_cache_path": kept,
            "trt_timing_cache_enable": True,
            "trt_timing_cache_path": kept,
            **_profiles(side),
        },
        "openvino": {"device_type": "AUTO", "num_of_threads": str(threads)},
        "coreml": {"ModelFormat": "MLProgram", "ModelCacheDirectory": kept},
    }
    chain: list[Device] = [device, "cuda", "cpu"] if device == "tensorrt" else [device, "cpu"]
    return [(PROVIDERS[one].name, options.get(one, {})) for one in chain]


def fall_back(path: Path, device: Device, reason: str) -> None:
    """Say that a model does not run on a device."""
    _say(f"--device {device}: {path.name} does not run there ({reason}); using {_named('cpu')} for it")


@functools.cache
def gpus() -> tuple[str, ...]:
    """Names of the NVIDIA GPUs that the driver shows; none without a driver."""
    cuda, count = _cuda(), ctypes.c_int(0)
    if cuda is None or cuda.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ()
    names = []
    for i in range(count.value):
        device, name = ctypes.c_int(0), ctypes.create_string_buffer(100)
        known = cuda.cuDeviceGet(ctypes.byref(device), i) == 0 and cuda.cuDeviceGetName(name, 100, device) == 0
        names.append(name.value.decode(errors="replace") if known else "unknown")
    return tuple(names)


def free_memory(number: int) -> int:
    """Bytes of a GPU's memory that nobody uses; 0 where the driver does not tell."""
    cuda, device, context = _cuda(), ctypes.c_int(0), ctypes.c_void_p()
    free, total = ctypes.c_size_t(0), ctypes.c_size_t(0)
    if cuda is None or cuda.cuDeviceGet(ctypes.byref(device), number) != 0:
        return 0
    if cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device) != 0:  # the one that ONNX Runtime works in
        return 0
    if cuda.cuCtxPushCurrent_v2(context) == 0:
        cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
        cuda.cuCtxPopCurrent_v2(ctypes.byref(context))
    cuda.cuDevicePrimaryCtxRelease_v2(device)
    return free.value


def driver() -> str | None:
    """Version of the NVIDIA driver; None where there is none."""
    try:
        library = ctypes.CDLL("nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1")
    except OSError:
        return None
    version = ctypes.create_string_buffer(100)
    if library.nvmlInit_v2() != 0 or library.nvmlSystemGetDriverVersion(version, 100) != 0:
        return None
    return version.value.decode(errors="replace")


def _cuda() -> ctypes.CDLL | None:
    """The driver's library, ready; None where there is none."""
    try:
        cuda = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None
    return cuda if cuda.cuInit(0) == 0 else None


def _profiles(side: int) -> dict[str, str]:
    """TensorRT's three options that say how large batches of photos become; without them, it sees when they come."""
    if not side:
        return {}
    most = (BATCH["tensorrt"], side, side)
    return {
        f"trt_profile_{end}_shapes": f"image:{photos}x3x{height}x{width}"
        for end, shape in (("min", _LEAST), ("opt", _USUAL), ("max", most))
        for photos, height, width in [map(min, shape, most)]
    }


def _has_tensorrt() -> bool:
    """Whether its libraries can be loaded; the package's own are loaded, so that ONNX Runtime finds them."""
    if importlib.util.find_spec("tensorrt_libs"):
        importlib.import_module("tensorrt_libs")
        return True
    return ctypes.util.find_library("nvinfer") is not None


def _named(device: Device) -> str:
    return "the CPU" if device == "cpu" else device


@functools.cache
def _say(line: str) -> None:
    """Once."""
    print(f"lgbatch: {line}", file=sys.stderr)
