"""Finds, checks and opens the ONNX models. The only user of ONNX Runtime's sessions."""

import ctypes
import functools
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnxruntime as ort
from numpy.typing import NDArray

from lgbatch.errors import ModelError

Kind = Literal["extractor", "matcher", "stages"]
Array = NDArray[Any]

FORMAT = "1"
"""Part of a model's file name. Goes up when what models take or give changes, so that they are exported again."""

LAYERS = 9
_SIDES = [f"{name}{side}" for name in ("keypoints", "descriptors", "size", "lengths") for side in (0, 1)]
_PAIR = ["x0", "x1", "lengths0", "lengths1"]
_MATCHES = ["matches0", "scores"]
_DECISIONS = ["confidence0", "matchability0", "confidence1", "matchability1"]
INTERFACE: dict[str, tuple[list[str], list[str]]] = {
    "extractor": (["image", "max_keypoints"], ["keypoints", "scores", "descriptors", "counts"]),
    "matcher": ([*_SIDES, "threshold"], _MATCHES),
    "stem": (["keypoints", "descriptors", "size", "lengths"], ["x", "cosines", "sines"]),
    "first layer": (_PAIR, ["y0", "y1", *_DECISIONS]),
    "layer": ([*_PAIR, "cosines0", "cosines1", "sines0", "sines1"], ["y0", "y1", *_DECISIONS]),
    "last layer": ([*_PAIR, "cosines0", "cosines1", "sines0", "sines1"], ["y0", "y1"]),
    "head": ([*_PAIR, "threshold"], _MATCHES),
}
"""Inputs and outputs, by name and in order, of every graph; their shapes are told where the graphs are made."""


@dataclass(frozen=True)
class Model:
    """An opened model: named arrays in, arrays out."""

    session: ort.InferenceSession
    path: Path
    metadata: Mapping[str, str]
    """What the export stored: weights hash, settings, parity figures."""

    @property
    def provider(self) -> str:
        """Which ONNX Runtime provider runs it."""
        return str(self.session.get_providers()[0])

    @property
    def weights(self) -> str:
        """sha256 of the weights that it was made from."""
        return self.metadata["lgbatch.weights_sha256"]

    def run(self, feed: Mapping[str, Array]) -> Sequence[Array]:
        """Outputs in the order of INTERFACE; raises RuntimeError (of ONNX Runtime) when the run fails."""
        outputs: Sequence[Array] = self.session.run(None, dict(feed))
        return outputs


def default_folder() -> Path:
    """Where models and weights are kept when --models does not say: lgbatch/ in the user's cache folder."""
    if "XDG_CACHE_HOME" in os.environ:
        base = Path(os.environ["XDG_CACHE_HOME"])
    elif sys.platform == "win32" and "LOCALAPPDATA" in os.environ:
        base = Path(os.environ["LOCALAPPDATA"])
    else:
        base = Path.home() / ".cache"
    return base / "lgbatch"


def stage_names() -> dict[str, str]:
    """The stages of the staged matcher, in order, and which of INTERFACE each is."""
    layers = {f"layer{i}": "layer" for i in range(LAYERS)}
    layers |= {"layer0": "first layer", f"layer{LAYERS - 1}": "last layer"}
    return {"stem": "stem", **layers, **{f"head{i}": "head" for i in range(LAYERS)}}


def family(extractor: str) -> str:
    """The network that an extractor is a variant of; one LightGlue serves them all: aliked for aliked-n16."""
    return extractor.partition("-")[0]


def model_path(folder: Path, extractor: str, kind: Kind) -> Path:
    """Where the model of this extractor and kind lies; the stages are a folder of models."""
    name = extractor if kind == "extractor" else family(extractor)
    return folder / (f"{name}-{kind}-v{FORMAT}" + ("" if kind == "stages" else ".onnx"))


def open_extractor(folder: Path, extractor: str, *, device: str, threads: int) -> Model:
    """Open and check an extractor. Raises ModelError: missing, damaged, another's, or the device is not there."""
    path = model_path(folder, extractor, "extractor")
    return _open(path, extractor, "extractor", device=device, threads=threads or available_cores())


def open_matcher(folder: Path, extractor: str, *, device: str, threads: int) -> Model:
    """Open and check the single-graph matcher of an extractor. Raises ModelError as open_extractor."""
    path = model_path(folder, extractor, "matcher")
    return _open(path, extractor, "matcher", device=device, threads=threads or available_cores())


def open_stages(folder: Path, extractor: str, *, device: str) -> dict[str, Model]:
    """Open and check the staged matcher of an extractor, by stage_names(). Raises ModelError as open_extractor.

    On CPU each stage runs in the thread that calls it: many small sessions with thread pools of their own fight for
    the cores, while one worker per core does not (measured).
    """
    path = model_path(folder, extractor, "stages")
    return {
        stage: _open(path / f"{stage}.onnx", extractor, kind, device=device, threads=1, shared=True)
        for stage, kind in stage_names().items()
    }


def _open(path: Path, extractor: str, kind: str, *, device: str, threads: int, shared: bool = False) -> Model:
    again = f"run `lgbatch export {extractor}`"
    if not path.is_file():
        raise ModelError(f"no {path.name} in {path.parent}: {again}")
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is said below, in one line
    options.intra_op_num_threads = threads
    if shared:
        _share_memory()
        options.add_session_config_entry("session.use_env_allocators", "1")
    wanted = providers(device)
    try:
        session = ort.InferenceSession(str(path), options, providers=wanted)
    except Exception as error:  # ONNX Runtime has one exception class for each status code
        reason = str(error).strip().partition("\n")[0][:200]
        raise ModelError(f"{path} cannot be opened ({reason}): delete it and {again}") from None
    metadata = dict(session.get_modelmeta().custom_metadata_map)
    found = metadata.get("lgbatch.kind"), metadata.get("lgbatch.extractor")
    if found[0] is None:
        raise ModelError(f"{path} was not made by lgbatch: delete it and {again}")
    owner = extractor if kind == "extractor" else family(extractor)
    if found != (kind, owner):
        raise ModelError(f"{path} is a {found[1]} {found[0]}, not a {owner} {kind}: delete it and {again}")
    names = sorted(i.name for i in session.get_inputs()), [o.name for o in session.get_outputs()]
    if names != (sorted(INTERFACE[kind][0]), INTERFACE[kind][1]):
        raise ModelError(f"{path} has other inputs or outputs than its metadata says: delete it and {again}")
    if device == "cuda" and session.get_providers()[0] != "CUDAExecutionProvider":
        raise ModelError("--device cuda: ONNX Runtime could not start on the GPU; see its CUDA and cuDNN versions")
    return Model(session, path, metadata)


@functools.cache
def _share_memory() -> None:
    """Make the one arena that all stages take their memory from: each with its own takes four times as much."""
    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(memory, ort.OrtArenaCfg(0, 1, -1, -1))  # no limit; grows by what is asked for


def providers(device: str) -> list[str]:
    """ONNX Runtime providers for `auto`, `cpu` or `cuda`. One is asked for only where it can load.

    Raises ModelError for `cuda` where there is no GPU, or no ONNX Runtime that could use it.
    """
    cpu = ["CPUExecutionProvider"]
    if device == "cpu":
        return cpu
    built_in = "CUDAExecutionProvider" in ort.get_available_providers()
    if built_in and gpu_count() > 0:
        if hasattr(ort, "preload_dlls"):
            ort.preload_dlls()
        return ["CUDAExecutionProvider", *cpu]
    if device == "cuda":
        lacking = "no NVIDIA GPU was found" if built_in else "this ONNX Runtime has no CUDA: install onnxruntime-gpu"
        raise ModelError(f"--device cuda: {lacking}")
    return cpu


def gpu_count() -> int:
    """How many NVIDIA GPUs the driver shows; 0 without a driver."""
    try:
        cuda = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if cuda.cuInit(0) != 0 or cuda.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def available_cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
