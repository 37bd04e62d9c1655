"""The environment of this process: CPU cores, memory and package versions. Limits of containers count."""

import contextlib
import math
import os
import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from lgbatch.runtime import cgroup
from lgbatch.runtime.packages import installed_version

_PACKAGES = ("onnxruntime-gpu", "onnxruntime", "pycolmap", "numpy", "h5py", "opencv-python")


def available_cores() -> int:
    """Return the number of CPU cores that this process may use: of its affinity, and of its container's CPU time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = cgroup.cpu_limit()
    return cores if limit is None else min(cores, math.ceil(limit))


def total_memory() -> int | None:
    """Return the memory of the machine or its container in bytes; None if the system does not report it (Windows)."""
    if not hasattr(os, "sysconf"):
        return None
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(machine, cgroup.memory_limit() or machine)


def available_memory() -> int | None:
    """Return the memory in bytes that can be allocated without swapping, or None if the system does not report it.

    Outside Linux it is total_memory().
    """
    available = total_memory()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) * 1024
    left = cgroup.memory_left()
    return available if left is None or available is None else min(available, left)


def private_memory() -> int:
    """Return the resident memory of this process in bytes, without files and shared memory; 0 outside Linux."""
    with contextlib.suppress(OSError):
        _, resident, shared, *_ = map(int, Path("/proc/self/statm").read_text().split())
        return (resident - shared) * os.sysconf("SC_PAGE_SIZE")
    return 0


def peak_memory_mb() -> float | None:
    """Return the peak resident memory of this process in MiB, or None if the system does not report it (Windows)."""
    with contextlib.suppress(OSError):  # Linux, where the peak of getrusage includes the parent process before exec
        lines = Path("/proc/self/status").read_text().splitlines()
        return round(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 2**10, 1)
    return _peak(children=False)


def peak_child_memory_mb() -> float | None:
    """Return the peak resident memory in MiB of the largest child process that has ended; None on Windows."""
    return _peak(children=True)


def _peak(*, children: bool) -> float | None:
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def versions() -> dict[str, str]:
    """Return the versions of lgbatch, Python and the packages that results depend on."""
    return {"lgbatch": metadata.version("lgbatch"), "python": platform.python_version()} | installed_versions(_PACKAGES)


def installed_versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    return {package: version for package in packages if (version := installed_version(package))}
