"""The packages that lgbatch needs on this machine: their installation, and what to do if one is missing or broken.

Imports the standard library only, so that it works if another package cannot be imported.
"""

import functools
import importlib.util
import platform
import re
import sys
from importlib import metadata

from lgbatch.errors import LgbatchError

RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")
"""Packages of ONNX Runtime. They share one import name, so that at most one may be installed."""
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
"""PyTorch's index of CPU builds. On Linux, PyPI has the CUDA build."""
_PYCOLMAP = (4, 2)
"""The oldest pycolmap that lgbatch can use."""
_X86, _ARM = ("x86_64", "AMD64"), ("aarch64", "arm64", "ARM64")
_HEADLESS = "`pip uninstall -y opencv-python` and then `pip install --force-reinstall --no-deps opencv-python-headless`"
_LIBRARIES = {"libGL": "libgl1", "libgthread": "libglib2.0-0"}
"""Libraries that opencv-python needs and servers lack, and their packages in Debian and Ubuntu."""


def installation(*, gpu: bool) -> tuple[str, str]:
    """Return the kind of this machine, and the command that installs lgbatch on it. `gpu`: there is an NVIDIA GPU."""
    system, x86 = platform.system(), platform.machine() in _X86
    name = {"Darwin": "macOS"}.get(system, system)
    architecture = "x86-64" if x86 else "ARM" if platform.machine() in _ARM else platform.machine()
    command = installation_command("export,cuda" if gpu and x86 else "export")
    return f"{name} on {architecture}{' with an NVIDIA GPU' if gpu else ''}", command


def installation_command(extras: str = "export") -> str:
    """Return the command that installs lgbatch with PyTorch on this system."""
    quote = '"' if platform.system() == "Windows" else "'"
    index = f" --extra-index-url {TORCH_CPU_INDEX}" if platform.system() == "Linux" else ""
    return f"pip install {quote}lgbatch[{extras}]{quote}{index}"


def installed_version(package: str) -> str | None:
    """Return the version of a package, or None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@functools.cache
def runtime_conflict() -> str | None:
    """The problem if several packages of ONNX Runtime are installed, with the way out: they overwrite each other."""
    found = {name: version for name in RUNTIMES if (version := installed_version(name))}
    if len(found) < 2:
        return None
    names = " and ".join(f"{name} {version}" for name, version in found.items())
    choices = [_required_runtime(), *(name for name in found if name not in ("onnxruntime", "onnxruntime-gpu"))]
    return (
        f"{names} are installed, and overwrite each other: run `pip uninstall -y {' '.join(found)}`, then "
        + " or ".join(f"`pip install {name}`" for name in choices)
    )


def pycolmap_problem() -> str | None:
    """The problem if pycolmap is not installed or too old, with the way out; otherwise None."""
    version = installed_version("pycolmap")
    if importlib.util.find_spec("pycolmap") is None:
        problem = "pycolmap is not installed"
    elif version and tuple(map(int, re.findall(r"\d+", version)[:2])) < _PYCOLMAP:
        problem = f"pycolmap {version} is too old"
    else:
        return None
    if sys.platform == "linux" and platform.machine() not in _X86:
        return (
            f"{problem}, and PyPI has no wheel of it for Linux on ARM: install pycolmap {_PYCOLMAP[0]}.{_PYCOLMAP[1]} "
            "or later from conda-forge, or build it from COLMAP's source"
        )
    return f"{problem}: run `pip install --upgrade pycolmap`"


def require_pycolmap() -> None:
    """Raise LgbatchError if pycolmap is not installed or too old."""
    if problem := pycolmap_problem():
        raise LgbatchError(f"{problem}; extract, pairs, match and infer work without it")


def import_hint(error: Exception) -> str | None:
    """What to do about a library that could not be imported, or is incomplete; None if the library is unknown."""
    message = str(error)
    for library, package in _LIBRARIES.items():
        if library in message:
            return f"install it (Debian, Ubuntu: `apt-get install {package}`), or run {_HEADLESS}"
    if "cv2" in message:
        name = next(filter(installed_version, ("opencv-python-headless", "opencv-python")), "opencv-python")
        return f"run `pip install --force-reinstall --no-deps {name}`"
    if "onnxruntime" in message:
        name = next(filter(installed_version, reversed(RUNTIMES)), _required_runtime())
        return runtime_conflict() or f"run `pip install --force-reinstall --no-deps {name}`"
    if "pycolmap" in message:
        return pycolmap_problem() or "run `pip install --force-reinstall --no-deps pycolmap`"
    return None


def _required_runtime() -> str:
    """The package of ONNX Runtime that lgbatch requires on this platform, as in pyproject.toml."""
    return "onnxruntime-gpu" if sys.platform != "darwin" and platform.machine() in _X86 else "onnxruntime"
