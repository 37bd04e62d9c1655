"""The environment of this process: CPU cores, peak memory and package versions."""

import contextlib
import os
import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

_PACKAGES = ("onnxruntime-gpu", "onnxruntime", "pycolmap", "numpy", "h5py", "opencv-python")


def available_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_memory_mb() -> float | None:
    """Return the peak resident memory of this process in MiB, or None if the system does not report it (Windows)."""
    with contextlib.suppress(OSError):  # Linux, where the peak of getrusage includes the parent process before exec
        lines = Path("/proc/self/status").read_text().splitlines()
        return round(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 2**10, 1)
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def versions() -> dict[str, str]:
    """Return the versions of lgbatch, Python and the packages that results depend on."""
    return {"lgbatch": metadata.version("lgbatch"), "python": platform.python_version()} | installed_versions(_PACKAGES)


def installed_versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    installed = {}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed[package] = metadata.version(package)
    return installed
