"""What the processor can do, told without compiled code: whether it would gain from kernels that are not installed."""

import ctypes
import functools
import platform
import sys
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
"""Linux lists the features of the processor there."""
_APPLE = frozenset({"asimddp"})
"""Every Apple M has NEON's dot products."""
_WINDOWS = {40: "avx2", 41: "avx512f", 43: "asimddp"}
"""Arguments of IsProcessorFeaturePresent (winnt.h), and the names that Linux gives them."""


@functools.cache
def features() -> frozenset[str]:
    """The instruction sets of the processor by their names in Linux; none of them if they cannot be told."""
    if sys.platform == "darwin":
        return _APPLE if platform.machine() == "arm64" else frozenset()
    if sys.platform == "win32":
        return frozenset(name for number, name in _WINDOWS.items() if _windows_has(number))
    try:
        lines = CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    # "flags : fpu vme ..." on x86, "Features : fp asimd ..." on ARM
    return frozenset(next((line.split()[1:] for line in lines if line.startswith(("flags", "Features"))), []))


def runs_kernels() -> bool:
    """Whether there are kernels for this processor. False if its instruction sets cannot be told."""
    return bool(features() & {"avx2", "asimddp"})


def gains_from_int8() -> bool:
    """Whether kernels in 8 bits are faster on this processor than fp32. False if its instruction sets cannot be told.

    AVX2 alone is slower than fp32 with AVX-512. Windows does not tell whether there is VNNI: AVX-512 counts as VNNI.
    """
    found = features()
    vnni = bool(found & {"avx512_vnni", "avx_vnni"}) or (sys.platform == "win32" and "avx512f" in found)
    return "asimddp" in found or vnni or ("avx2" in found and "avx512f" not in found)


def _windows_has(number: int) -> bool:
    return sys.platform == "win32" and bool(ctypes.windll.kernel32.IsProcessorFeaturePresent(number))
