"""Finds, checks and opens the models."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from lgbatch import kernels
from lgbatch.config import Settings
from lgbatch.devices import UNFIT, Device, choose, fall_back, for_matching, free_memory
from lgbatch.errors import ModelError
from lgbatch.runtime import Array, OnnxRuntime, Session, available_cores

Kind = Literal["extractor", "matcher", "stages", "stages-fp16", "stages-int8"]

STAGES: dict[Kind, str] = {"stages": "fp32", "stages-fp16": "fp16", "stages-int8": "int8"}
"""Kinds of staged matchers, and what each computes in."""

FORMAT = "3"
"""Part of a model's file name. Goes up when what models take or give changes, so that they are exported again."""

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
    "pack": (["x", "cosines", "sines", "rows"], ["packed_x", "packed_cosines", "packed_sines"]),
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
PACK = {"pack": "pack"}
"""A stage more, and which of INTERFACE it is, where the stages can be on a GPU: it gathers what goes on there."""
FP32_ONLY = ("xfeat",)
"""Families whose LightGlue is too narrow for 8-bit layers: its decisions are wrong by 0.4 (measured). Whether half
precision would do has not been measured."""


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
    """By stage_names() and PACK."""
    precision: str
    """fp32, fp16 or int8."""
    shape: Shape
    memory: int = 0
    """Bytes that were free on the GPU when they had been opened; 0 on a CPU."""

    @property
    def device(self) -> Device:
        """Where they run; the CPU where one of them has to, so that what goes between them comes to the host."""
        devices = {model.device for model in self.models.values()}
        return "cpu" if "cpu" in devices else self.models["stem"].device

    @property
    def weights(self) -> str:
        """sha256 of the weights that they were made from."""
        return self.models["stem"].weights

    def run(self, stage: str, feed: Mapping[str, Array]) -> Sequence[Array]:
        """As Model.run; what the stage does not take is left."""
        model = self.models[stage]
        return model.run({name: feed[name] for name in model.session.inputs})

    def shrink(self) -> None:
        """Give the device back what batches have taken that were larger."""
        session = self.models["pack"].session if "pack" in self.models else None
        if isinstance(session, OnnxRuntime):
            widths = {"x": self.shape.width, "cosines": self.shape.head_dim // 2, "sines": self.shape.head_dim // 2}
            feed: dict[str, Array] = {name: np.zeros((1, 1, width), np.float32) for name, width in widths.items()}
            session.shrink(feed | {"rows": np.zeros((1, 1), np.int64)})


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
    """What the staged matcher is to compute in: `auto` is fp16 on a GPU and int8 on a CPU where that is fast, and
    where neither is good, or not to be had, fp32.

    Raises ModelError where this precision is not to be had.
    """
    on_cpu = for_matching(choose(settings.device)) == "cpu"
    fp32_only = family(settings.extractor) in FP32_ONLY
    if settings.precision == "auto":
        quick = "fp16" if not on_cpu else "fp32" if kernels.missing() else "int8"
        return "fp32" if fp32_only else quick
    if settings.precision != "fp32" and fp32_only:
        raise ModelError(f"the LightGlue of {settings.extractor} runs in fp32 alone: leave --precision out")
    if settings.precision == "fp16" and on_cpu:
        raise ModelError(
            "--precision fp16 is for a GPU: use --device cuda where there is one, or leave --precision out"
        )
    if settings.precision == "int8" and not on_cpu:
        raise ModelError("--precision int8 is for the CPU: use --device cpu, or leave --precision out")
    if settings.precision == "int8" and (lacking := kernels.missing()):
        raise ModelError(f"--precision int8 cannot be had ({lacking}): use --precision fp32")
    return settings.precision


def stages_kind(settings: Settings) -> Kind:
    """Which model the staged matcher is; raises as matching_precision."""
    precision = matching_precision(settings)
    return next(kind for kind, of_kind in STAGES.items() if of_kind == precision)


def precision_of(kind: Kind) -> str:
    """What a model of a kind computes in."""
    return STAGES.get(kind, "fp32")


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


def open_stages(folder: Path, settings: Settings, *, number: int = 0) -> Stages:
    """Open and check the staged matcher of an extractor. Raises ModelError as open_extractor and matching_precision.

    `number` is the GPU's. Where half precision was meant for one that does not start, the CPU takes what it is best in.

    On CPU each stage runs in the thread that calls it: many small sessions with thread pools of their own fight for
    the cores, while one worker per core does not (measured). In int8 all but the stem is run by kernels.py.
    """
    device, precision = for_matching(choose(settings.device)), matching_precision(settings)
    path = model_path(folder, settings.extractor, stages_kind(settings))
    size = shape(settings.extractor)
    stages = stage_names(size.layers) | ({} if precision == "int8" else PACK)
    models = {
        stage: _open(
            path / stage_file(stage, kind, precision), settings.extractor, kind, device, stage=True, number=number
        )
        for stage, kind in stages.items()
    }
    opened = Stages(models, precision, size)
    if opened.device == "cpu":
        cpu = replace(settings, device="cpu", precision="auto")
        return opened if precision != "fp16" else open_stages(folder, cpu)
    return replace(opened, memory=free_memory(number))


def _open(
    path: Path,
    extractor: str | None,
    kind: str,
    device: Device,
    *,
    threads: int = 1,
    side: int = 0,
    stage: bool = False,
    number: int = 0,
) -> Model:
    """Open and check a file; a stage shares its memory with the others on the device of that number.

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
            session = OnnxRuntime(path, device, threads=threads, shared=stage, side=side, number=number)
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
