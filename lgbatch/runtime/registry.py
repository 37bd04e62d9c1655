"""Finds, checks and opens the models."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

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


def precision_of(kind: Kind) -> str:
    """What a model of a kind computes in."""
    return STAGES.get(kind, "fp32")
