"""The registry of models: their kinds, file names, inputs and outputs, and the dimensions of each LightGlue."""

import contextlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lgbatch.errors import ModelError

Kind = Literal["extractor", "extractor-kernels", "matcher", "stages", "stages-fp16", "stages-int8"]
STAGES_PRECISION: dict[Kind, str] = {"stages": "fp32", "stages-fp16": "fp16", "stages-int8": "int8"}
"""Precision of each kind of staged matcher."""
FORMAT = "3"
"""Version in the file names of models. Increase it when inputs or outputs change, so that models are exported again."""
EXTRACTOR_FORMATS = {"disk": "4"}
"""Versions of the extractors that changed since, by family."""
SUBPIXEL_FITS = {"disk": "quadratic"}
"""How extractors whose keypoints were published at whole pixels refine them, by family. Part of the provenance."""
STAGES_FORMATS: dict[Kind, str] = {"stages-fp16": "4", "stages-int8": "4"}
"""The same for stages: the points of fp16 have other types; int8 has the stem, and matrices for bfloat16."""
KERNELS_FORMAT = "1"
"""The same for the extractors whose networks run in lgbatch.kernels."""
KERNEL_EXTRACTORS = {"aliked": "fp32", "disk": "int16"}
"""Their families, and the precision of their products there."""
MIN_SIDE = 5
"""Minimum short side of a photo in pixels: keypoints are local maxima in windows of at least this size."""
_SIDES = [f"{name}{side}" for name in ("keypoints", "descriptors", "size", "lengths") for side in (0, 1)]
_PAIR = ["x0", "x1", "lengths0", "lengths1"]
_FEATURES = ["keypoints", "scores", "descriptors", "counts"]
_MATCHES = ["matches0", "scores"]
_DECISIONS = ["confidence0", "matchability0", "confidence1", "matchability1"]
INTERFACE: dict[str, tuple[list[str], list[str]]] = {
    "extractor": (["image", "max_keypoints"], _FEATURES),
    "extractor-kernels": (["pixels", "max_keypoints"], _FEATURES),
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
"""Names of the inputs and outputs of each kind of graph, in order. lgbatch.export documents their shapes."""
HALF_TENSORS = frozenset(
    [f"{name}{side}" for name in ("x", "y", "cosines", "sines") for side in ("", "0", "1")] + INTERFACE["pack"][1]
)
"""Inputs and outputs of stages that are float16 in the stages of precision fp16: the tensors of points. Others are
float32."""


@dataclass(frozen=True)
class Shape:
    """Dimensions of a LightGlue."""

    layers: int = 9
    width: int = 256
    """Embedding dimension."""
    heads: int = 4

    @property
    def head_dim(self) -> int:
        """Head dimension."""
        return self.width // self.heads


SHAPES = {"xfeat": Shape(layers=6, width=96, heads=1)}
"""Dimensions by family. The other families use the defaults of Shape, those of the LightGlue paper."""
PACK = {"pack": "pack"}
"""The additional stage of matchers that can run on a GPU, and its kind in INTERFACE. It gathers points into a batch."""
FP32_ONLY = ("xfeat",)
"""Families whose LightGlue is too narrow for 8-bit layers: confidence and matchability are off by up to 0.4 (measured).
Half precision has not been measured."""


def shape(extractor: str) -> Shape:
    """Return the dimensions of an extractor's LightGlue."""
    return SHAPES.get(family(extractor), Shape())


def default_folder() -> Path:
    """Return the default of --models, the folder of models and weights: lgbatch/ in the user's cache folder.

    An empty or relative XDG_CACHE_HOME counts as unset, by the XDG specification. Raises ModelError if the user has no
    home folder.
    """
    for name in ("XDG_CACHE_HOME", *["LOCALAPPDATA"] * (sys.platform == "win32")):
        folder = Path(os.environ.get(name, ""))
        if folder.is_absolute():
            return folder / "lgbatch"
    with contextlib.suppress(RuntimeError):  # no HOME, and a user id without an account, as in a container
        if os.environ.get("HOME") != "":  # Python would take the root folder for it
            return Path.home() / ".cache" / "lgbatch"
    raise ModelError("there is no home folder for the models: set HOME, or give their folder with --models")


def stage_names(layers: int) -> dict[str, str]:
    """Return the stages of a staged matcher with that many layers, in order, each with its kind in INTERFACE."""
    layer_kinds = {f"layer{i}": "layer" for i in range(layers)}
    layer_kinds |= {"layer0": "first layer", f"layer{layers - 1}": "last layer"}
    return {"stem": "stem", **layer_kinds, **{f"head{i}": "head" for i in range(layers)}}


def stage_file(stage: str, precision: str) -> str:
    """Return the file name of a stage in the folder of a staged matcher."""
    return stage + (".npz" if precision == "int8" else ".onnx")


def family(extractor: str) -> str:
    """Return the family of an extractor, such as aliked for aliked-n16. Its variants share one LightGlue."""
    return extractor.partition("-")[0]


def model_path(folder: Path, extractor: str, kind: Kind) -> Path:
    """Return the path of a model: a file, or a folder of files for a staged matcher."""
    if kind == "extractor":
        return folder / f"{extractor}-{kind}-v{EXTRACTOR_FORMATS.get(family(extractor), FORMAT)}.onnx"
    if kind == "extractor-kernels":
        return folder / f"{extractor}-{kind}-v{KERNELS_FORMAT}.npz"
    version = STAGES_FORMATS.get(kind, FORMAT)
    return folder / (f"{family(extractor)}-{kind}-v{version}" + ("" if kind.startswith("stages") else ".onnx"))


def precision_of(kind: Kind) -> str:
    """Return the precision of a kind of model."""
    return STAGES_PRECISION.get(kind, "fp32")
