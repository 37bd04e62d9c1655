"""Runs ONNX files, on ONNX Runtime. Its only user, with devices.py."""

import contextlib
import os
import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path


def available_cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_PACKAGES = ("onnxruntime-gpu", "onnxruntime", "pycolmap", "numpy", "h5py", "opencv-python")


def peak_memory_mb() -> float | None:
    """Most memory that this process had at once; None where the system does not say (Windows)."""
    with contextlib.suppress(OSError):  # Linux; getrusage begins there with the memory of the process that started this
        lines = Path("/proc/self/status").read_text().splitlines()
        return round(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 2**10, 1)
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def versions() -> dict[str, str]:
    """Versions of lgbatch, Python and what the result depends on."""
    return {"lgbatch": metadata.version("lgbatch"), "python": platform.python_version()} | installed(_PACKAGES)


def installed(packages: Sequence[str]) -> dict[str, str]:
    """Versions of those of the packages that are installed."""
    found = {}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
