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
from typing import Literal

import onnxruntime as ort

from lgbatch.runtime.cuda import gpus

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
        return "cpu" if unavailable_reason("cuda") else "cuda", None
    wanted = next(one for one in PROVIDERS if one == device)
    lacking = unavailable_reason(wanted)
    if not lacking:
        return wanted, None
    return ("cuda" if wanted == "tensorrt" and not unavailable_reason("cuda") else "cpu"), lacking


@functools.cache
def unavailable_reason(device: Device) -> str | None:
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


def fall_back(path: Path, device: Device, reason: str) -> None:
    """Say that a model does not run on a device."""
    _say(f"--device {device}: {path.name} does not run there ({reason}); using {_named('cpu')} for it")


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
