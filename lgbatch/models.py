"""Finds, checks and opens the models."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lgbatch import kernels
from lgbatch.config import Settings
from lgbatch.devices import UNFIT, Device, choose, fall_back, for_matching
from lgbatch.errors import ModelError
from lgbatch.runtime import Array, OnnxRuntime, Session, available_cores

Kind = Literal["extractor", "matcher", "stages", "stages-int8"]

FORMAT = "2"
"""Part of a model's file name. Goes up when what models take or give changes, so that they are exported again."""

TOKENS = {"cpu": 4096, "cuda": 131072}
"""Padded keypoints, of both sides together, in one batch of the matcher."""
INT8_TOKENS = 1
"""Each pair is a batch of its own there: kernels.py takes one after the other, and nothing is padded."""

MIN_SIDE = 5
"""Pixels of a photo's short side that an extractor needs: a keypoint is the greatest in a window of this many."""
_SIDES = [f"{name}{side}" for name in ("keypoints", "descriptors", "size", "lengths") for side in (0, 1)]
_PAIR = ["x0", "x1", "lengths0", "lengths1"]
_MATCHES = ["matches0", "scores"]
_DECISIONS = ["confidence0", "matchability0", "confidence1", "matchability1"]
INTERFACE: dict[str, tuple[list[str], list[str]]] = {
    "extractor": (["image", "max_keypoints"], ["keypoints", "scores", "descriptors", "counts"]),
    "end2end": (
        ["image0", "image1", "scales0", "scales1", "max_keypoints", "threshold"],
        ["keypoints0", "keypoints1", "counts0", "counts1", "matches0", "scores"],
    ),
    "matcher": ([*_SIDES, "threshold"], _MATCHES),
    "stem": (["keypoints", "descriptors", "size", "lengths"], ["x", "cosines", "sines"]),
    "first layer": (_PAIR, ["y0", "y1", *_DECISIONS]),
    "layer": ([*_PAIR, "cosines0", "cosines1", "sines0", "sines1"], ["y0", "y1", *_DECISIONS]),
    "last layer": ([*_PAIR, "cosines0", "cosines1", "sines0", "sines1"], ["y0", "y1"]),
    "head": ([*_PAIR, "threshold"], _MATCHES),
}
"""Inputs and outputs, by name and in order, of every graph; their shapes are told where the graphs are made."""


@dataclass(frozen=True)
class Shape:
    """How large a LightGlue is."""

    layers: int = 9
    width: int = 256
    """Numbers that describe a point between the layers."""
    heads: int = 4

    @property
    def head_dim(self) -> int:
        """Numbers of a point that one head of attention sees."""
        return self.width // self.heads


SHAPES = {"xfeat": Shape(layers=6, width=96, heads=1)}
"""By family; the others are as published first."""
FP32_ONLY = ("xfeat",)
"""Families whose LightGlue is too narrow for 8-bit layers: its decisions are wrong by 0.4 (measured)."""


def shape(extractor: str) -> Shape:
    """How large an extractor's LightGlue is."""
    return SHAPES.get(family(extractor), Shape())


@dataclass(frozen=True)
class Model:
    """An opened model: named arrays in, arrays out."""

    session: Session
    path: Path

    @property
    def device(self) -> Device:
        """Where it runs."""
        return self.session.device

    @property
    def weights(self) -> str:
        """sha256 of the weights that it was made from."""
        return self.session.metadata["lgbatch.weights_sha256"]

    @property
    def family(self) -> str:
        """Whose features it makes or takes, as `family` tells."""
        return family(self.session.metadata["lgbatch.extractor"])

    def run(self, feed: Mapping[str, Array]) -> Sequence[Array]:
        """Outputs in the order of INTERFACE; raises RuntimeError when the run fails."""
        return self.session.run(feed)


@dataclass(frozen=True)
class Stages:
    """LightGlue in stages, opened."""

    models: Mapping[str, Model]
    """By stage_names()."""
    precision: str
    """fp32 or int8."""

    @property
    def device(self) -> Device:
        """Where they run."""
        return self.models["stem"].device

    @property
    def tokens(self) -> int:
        """Padded keypoints, of both sides together, that one batch best holds."""
        return INT8_TOKENS if self.precision == "int8" else TOKENS[self.device]

    @property
    def weights(self) -> str:
        """sha256 of the weights that they were made from."""
        return self.models["stem"].weights

    def run(self, stage: str, feed: Mapping[str, Array]) -> Sequence[Array]:
        """As Model.run."""
        return self.models[stage].run(feed)


def default_folder() -> Path:
    """Where models and weights are kept when --models does not say: lgbatch/ in the user's cache folder."""
    if "XDG_CACHE_HOME" in os.environ:
        base = Path(os.environ["XDG_CACHE_HOME"])
    elif sys.platform == "win32" and "LOCALAPPDATA" in os.environ:
        base = Path(os.environ["LOCALAPPDATA"])
    else:
        base = Path.home() / ".cache"
    return base / "lgbatch"


def stage_names(layers: int) -> dict[str, str]:
    """The stages of a staged matcher of that many layers, in order, and which of INTERFACE each is."""
    between = {f"layer{i}": "layer" for i in range(layers)}
    between |= {"layer0": "first layer", f"layer{layers - 1}": "last layer"}
    return {"stem": "stem", **between, **{f"head{i}": "head" for i in range(layers)}}


def stage_file(stage: str, kind: str, precision: str) -> str:
    """Its name in the folder of a staged matcher."""
    return stage + (".npz" if precision == "int8" and kind != "stem" else ".onnx")


def family(extractor: str) -> str:
    """The network that an extractor is a variant of; one LightGlue serves them all: aliked for aliked-n16."""
    return extractor.partition("-")[0]


def model_path(folder: Path, extractor: str, kind: Kind) -> Path:
    """Where the model of this extractor and kind lies; stages are a folder of models."""
    name = extractor if kind == "extractor" else family(extractor)
    return folder / (f"{name}-{kind}-v{FORMAT}" + ("" if kind.startswith("stages") else ".onnx"))


def matching_precision(settings: Settings) -> str:
    """What the staged matcher is to compute in: `auto` is int8 where that is fast and good, fp32 elsewhere.

    Raises ModelError where this precision is not to be had.
    """
    on_cpu = for_matching(choose(settings.device)) == "cpu"
    fp32_only = family(settings.extractor) in FP32_ONLY
    if settings.precision == "auto":
        return "int8" if on_cpu and not kernels.missing() and not fp32_only else "fp32"
    if settings.precision == "int8" and fp32_only:
        raise ModelError(f"the LightGlue of {settings.extractor} runs in fp32 alone: leave --precision out")
    if settings.precision == "int8" and not on_cpu:
        raise ModelError("--precision int8 is for the CPU: use --device cpu, or leave --precision out")
    if settings.precision == "int8" and (lacking := kernels.missing()):
        raise ModelError(f"--precision int8 cannot be had ({lacking}): use --precision fp32")
    return settings.precision


def stages_kind(settings: Settings) -> Kind:
    """Which model the staged matcher is; raises as matching_precision."""
    return "stages-int8" if matching_precision(settings) == "int8" else "stages"


def open_extractor(folder: Path, settings: Settings) -> Model:
    """Open and check an extractor. Raises ModelError: missing, damaged, another's.

    It computes in single precision always: keypoints are to be the reference's.
    """
    path, device = model_path(folder, settings.extractor, "extractor"), choose(settings.device)
    if family(settings.extractor) in UNFIT.get(device, ()):
        fall_back(path, device, "its keypoints would come out wrong")
        device = "cpu"
    threads = settings.threads or available_cores()
    return _open(path, settings.extractor, "extractor", device, threads=threads, side=settings.resize)


def open_matcher(folder: Path, settings: Settings) -> Model:
    """Open and check the single-graph matcher of an extractor. Raises ModelError as open_extractor."""
    path, device = model_path(folder, settings.extractor, "matcher"), for_matching(choose(settings.device))
    return _open(path, settings.extractor, "matcher", device, threads=settings.threads or available_cores())


def open_file(path: Path, kind: Literal["extractor", "matcher", "end2end"], device: Device, *, threads: int) -> Model:
    """Open and check a model wherever it lies, of whatever extractor. Raises ModelError as open_extractor."""
    return _open(path, None, kind, device, threads=threads)


def open_stages(folder: Path, settings: Settings) -> Stages:
    """Open and check the staged matcher of an extractor. Raises ModelError as open_extractor and matching_precision.

    On CPU each stage runs in the thread that calls it: many small sessions with thread pools of their own fight for
    the cores, while one worker per core does not (measured). In int8 all but the stem is run by kernels.py.
    """
    device, precision = for_matching(choose(settings.device)), matching_precision(settings)
    path = model_path(folder, settings.extractor, stages_kind(settings))
    models = {
        stage: _open(path / stage_file(stage, kind, precision), settings.extractor, kind, device, stage=True)
        for stage, kind in stage_names(shape(settings.extractor).layers).items()
    }
    return Stages(models, precision)


def _open(
    path: Path,
    extractor: str | None,
    kind: str,
    device: Device,
    *,
    threads: int = 1,
    side: int = 0,
    stage: bool = False,
) -> Model:
    """Open and check a file; a stage shares its memory with the others.

    Without an extractor it may be of any.
    """
    again = f"run `lgbatch export {extractor or 'EXTRACTOR'}`"
    if not path.is_file():
        raise ModelError(f"no {path.name} in {path.parent}: {again}")
    session: Session
    try:
        if path.suffix == ".npz":
            session = kernels.Head(path) if kind == "head" else kernels.Layer(path)
        else:
            session = OnnxRuntime(path, device, threads=threads, shared=stage, side=side)
    except Exception as error:  # each runtime has exceptions of its own
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{path} cannot be opened ({reason}): delete it and {again}") from None
    found = session.metadata.get("lgbatch.kind"), session.metadata.get("lgbatch.extractor")
    if found[0] is None:
        raise ModelError(f"{path} was not made by lgbatch: delete it and {again}")
    if extractor is None and found[0] != kind:
        raise ModelError(f"{path} is a {found[1]} {found[0]}, not a model of the kind {kind}: give another file")
    owner = extractor if extractor is None or kind == "extractor" else family(extractor)
    if owner is not None and found != (kind, owner):
        raise ModelError(f"{path} is a {found[1]} {found[0]}, not a {owner} {kind}: delete it and {again}")
    inputs, outputs = INTERFACE[kind]
    constant = {"max_keypoints"} if kind == "end2end" else set()  # where `lgbatch export --max-keypoints` made it one
    if {*session.inputs} | constant != {*inputs} or session.outputs != outputs:
        raise ModelError(f"{path} has other inputs or outputs than its metadata says: delete it and {again}")
    return Model(session, path)
