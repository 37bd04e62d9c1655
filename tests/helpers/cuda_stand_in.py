"""Libraries that stand in for CUDA's, built from cuda_stand_in.c for the CUDA provider of the installed ONNX Runtime.

With them in LD_LIBRARY_PATH the provider starts without a GPU: its own code assigns the nodes of models, copies data
and calls kernels, but the kernels do nothing. Tests use it to see where nodes are placed, and never for numbers.
"""

import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import onnxruntime

SOURCE = Path(__file__).with_suffix(".c")
PROVIDER = Path(onnxruntime.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
PARTS = {"libcuda.": "DRIVER", "libcudart.": "RUNTIME", "libcudnn.": "CUDNN"}
"""Parts of cuda_stand_in.c, by the libraries that they belong to."""
CUDNN, DRIVER = "libcudnn.so", "libcuda.so.1"
"""The provider loads cuDNN itself, and calls the driver's functions without versions."""


def missing_part() -> str | None:
    """What the stand-in needs and this machine lacks, or None."""
    if not PROVIDER.exists():
        return "this ONNX Runtime has no CUDA provider"
    missing = [tool for tool in ("gcc", "readelf") if not shutil.which(tool)]
    return f"no {missing[0]}" if missing else None


def build(folder: Path) -> dict[str, str]:
    """Build the libraries in a folder. Returns the environment of a process that uses them."""
    for library, functions in _needed_functions().items():
        own = set(re.findall(r"\b(\w+)\(", SOURCE.read_text()))
        stubs = [_stub(name) for name in sorted(functions - own)]
        part = next((part for prefix, part in PARTS.items() if library.startswith(prefix)), "NO_PART")
        (folder / "stubs.c").write_text("\n".join([f"#define {part}", f'#include "{SOURCE}"', *stubs]))
        (folder / "versions.map").write_text(f"{library} {{ global: *; }};\n")
        versions = [] if library == DRIVER else [f"-Wl,--version-script={folder / 'versions.map'}"]
        command = ["gcc", "-w", "-shared", "-fPIC", f"-Wl,-soname,{library}", *versions, "-o", library, "stubs.c"]
        subprocess.run(command, cwd=folder, check=True)
    return {**os.environ, "LD_LIBRARY_PATH": str(folder), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def _needed_functions() -> dict[str, set[str]]:
    """CUDA's functions that the provider calls, by library."""
    listing = _readelf("--dyn-syms")
    functions: defaultdict[str, set[str]] = defaultdict(set)
    for library in re.findall(r"\[(lib(?:cu|nv)[^]]*)\]", _readelf("--dynamic")):
        functions[library] = set()
    for name, library in re.findall(r" UND (\w+)@(lib(?:cu|nv)\S+)", listing):
        functions[library].add(name)
    functions[DRIVER] |= set(re.findall(r" UND (cu[A-Z]\w+)$", listing, re.MULTILINE))
    functions[CUDNN] = {name.decode() for name in re.findall(rb"\0(cudnn[A-Z]\w+)(?=\0)", PROVIDER.read_bytes())}
    return functions


def _readelf(what: str) -> str:
    return subprocess.run(["readelf", "-W", what, PROVIDER], check=True, capture_output=True, text=True).stdout


def _stub(name: str) -> str:
    """A function that succeeds. One that creates an object returns the address of a dummy."""
    if "Create" in name:
        return f"int {name}(void **object) {{ static char dummy[4096]; *object = dummy; return 0; }}"
    return f"int {name}(void) {{ return 0; }}"
