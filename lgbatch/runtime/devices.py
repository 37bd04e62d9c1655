"""The devices that models run on: their ONNX Runtime providers, their availability, and the choice of one.

Extraction runs on all devices, since providers support convolutions well. Matching runs on CUDA and the CPU only:
LightGlue passes sequence lengths to the operator Attention of opset 24. The OpenVINO provider rejects that (1.24.1);
the other providers have not been tested with it.
"""

import contextlib
import ctypes.util
import functools
import importlib.util
import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import onnxruntime as ort

from lgbatch.errors import LgbatchError
from lgbatch.runtime.cuda import gpus
from lgbatch.runtime.packages import runtime_conflict
from lgbatch.runtime.registry import family

if os.environ.get("ORT_DISABLE_TELEMETRY") != "0":
    ort.disable_telemetry_events()  # on Windows the variable, which `lgbatch` sets before this import, has no effect

Device = Literal["cpu", "cuda", "tensorrt", "openvino", "coreml", "directml"]


@dataclass(frozen=True)
class Provider:
    """An execution provider of ONNX Runtime."""

    name: str
    install_hint: str
    """How to get it."""


PROVIDERS: dict[Device, Provider] = {
    "cpu": Provider("CPUExecutionProvider", "install onnxruntime"),
    "cuda": Provider("CUDAExecutionProvider", "install onnxruntime-gpu"),
    "tensorrt": Provider("TensorrtExecutionProvider", "install onnxruntime-gpu and tensorrt-cu13"),
    "openvino": Provider("OpenVINOExecutionProvider", "install onnxruntime-openvino instead of onnxruntime-gpu"),
    "coreml": Provider("CoreMLExecutionProvider", "it is part of onnxruntime for macOS"),
    "directml": Provider("DmlExecutionProvider", "on Windows, install onnxruntime-directml instead of onnxruntime-gpu"),
}
NVIDIA: tuple[Device, ...] = ("cuda", "tensorrt")
BATCH_SIZES: Mapping[Device, int] = {"cuda": 8, "tensorrt": 8}
"""Photos per extraction batch; 1 on the other devices. On the CPU larger batches are no faster (measured) and need more
memory."""
UNSUPPORTED_FAMILIES: Mapping[Device, Sequence[str]] = {"openvino": ("aliked",)}
"""Families of extractors with wrong keypoints on a device (onnxruntime-openvino 1.24.1 rounds them to whole pixels)."""
_NOT_STARTED: dict[Device, str] = {}
"""Devices whose provider did not start in this process, and why."""


def choose_device(requested: str) -> Device:
    """Return the device to use for `--device`. If it falls back to another one, warn once on standard error.

    Also warn of packages of ONNX Runtime that overwrite each other, and of a GPU that is not used.
    """
    device, reason = resolve_device(requested)
    if conflict := runtime_conflict():
        _warn(conflict)
    if reason:
        _warn_unavailable(requested, reason, device)
    elif (unused := unused_gpu(requested)) and not has_failed("cuda"):
        _warn(unused)
    return device


def unused_gpu(requested: str) -> str | None:
    """Why "auto" does not use the GPU of this machine, with the way out; None if it does, or there is no GPU."""
    if requested != "auto" or not gpus() or not (reason := unavailable_reason("cuda")):
        return None
    return f"the GPU is not used: {reason}"


def resolve_device(requested: str) -> tuple[Device, str | None]:
    """Return the device to use for `--device`, and why the requested one is unavailable, or None.

    "auto" is CUDA if available, otherwise the CPU. TensorRT falls back to CUDA, and every device to the CPU.
    """
    if requested == "auto":
        return "cpu" if unavailable_reason("cuda") else "cuda", None
    device = next(known for known in PROVIDERS if known == requested)
    reason = unavailable_reason(device)
    if not reason:
        return device, None
    return ("cuda" if device == "tensorrt" and not unavailable_reason("cuda") else "cpu"), reason


def extraction_device(requested: str, extractor: str) -> Device:
    """Return the device that an extractor runs on. Warn, once, if its keypoints would be wrong on the chosen one."""
    device = choose_device(requested)
    if family(extractor) in UNSUPPORTED_FAMILIES.get(device, ()):
        warn_cpu_fallback(extractor, device, "its keypoints would be wrong")
        return "cpu"
    return device


def matching_device(device: Device) -> Device:
    """Return the device that LightGlue uses if extraction uses `device`."""
    return "cuda" if device in NVIDIA else "cpu"


def unavailable_reason(device: Device) -> str | None:
    """Why the device is unavailable, or None.

    A session may still fail to start on an available device. If its provider does not start, it is unavailable from
    then on.
    """
    return _NOT_STARTED.get(device) or _missing_part(device)


@functools.cache
def _missing_part(device: Device) -> str | None:
    """What the device lacks, or None."""
    provider = PROVIDERS[device]
    if provider.name not in ort.get_available_providers():
        return f"this ONNX Runtime has no {provider.name} ({provider.install_hint})"
    if device in NVIDIA and not gpus():
        return "no NVIDIA GPU was found"
    if device == "tensorrt" and not _load_tensorrt():
        return f"TensorRT's libraries were not found ({provider.install_hint})"
    if device in NVIDIA and hasattr(ort, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):  # it prints a line for each missing library
            ort.preload_dlls()
    return None


def has_failed(device: Device) -> bool:
    """Whether provider_failed was called for the device."""
    return device in _NOT_STARTED


def provider_failed(device: Device, *, warn: bool = True) -> None:
    """Make a device unavailable whose provider did not start, and warn once that the CPU is used instead."""
    libraries = "the CUDA libraries, for instance with `pip install 'lgbatch[cuda]'`"
    way_out = libraries if device in NVIDIA else "its libraries"
    _NOT_STARTED[device] = f"{PROVIDERS[device].name} did not start: install {way_out}"
    if warn:
        _warn_unavailable(device, _NOT_STARTED[device], "cpu")


def stop_if_lost(device: Device, error: Exception, run_small: Callable[[], object]) -> None:
    """Raise LgbatchError if, after an error on a device, a trivially small run fails too.

    After some errors of CUDA, such as an illegal memory access, every later run of the process fails.
    """
    if device == "cpu":
        return
    try:
        run_small()
    except Exception:
        reason = " ".join(str(error).split())[:200]
        raise LgbatchError(
            f"--device {device} failed and does not recover ({reason}): run the command again, which continues"
        ) from error


def warn_gpu_left_out(device_id: int, actual: str, used: str) -> None:
    """Warn that matching does without a GPU: it would run as `actual`, and the other workers run as `used`."""
    _warn(f"GPU {device_id} is not used: matching would run there in {actual}, but runs in {used} elsewhere")


def warn_cpu_fallback(model: str, device: Device, reason: str) -> None:
    """Warn, once, that a model runs on the CPU because it cannot run on `device`."""
    _warn(f"--device {device}: {model} cannot run there ({reason}); using {_display_name('cpu')} for it")


def _load_tensorrt() -> bool:
    """Whether TensorRT's libraries are installed. Those of its Python package are loaded for ONNX Runtime to find."""
    if importlib.util.find_spec("tensorrt_libs"):
        importlib.import_module("tensorrt_libs")
        return True
    return ctypes.util.find_library("nvinfer") is not None


def _warn_unavailable(requested: str, reason: str, used: Device) -> None:
    _warn(f"--device {requested}: {reason}; using {_display_name(used)}")


def _display_name(device: Device) -> str:
    return "the CPU" if device == "cpu" else device


@functools.cache
def _warn(message: str) -> None:
    """Print a message to standard error, once per process."""
    print(f"lgbatch: {message}", file=sys.stderr)
