"""What is written and compared for each kind of model. Imports torch, so it is imported only when exporting."""

import importlib
from collections.abc import Mapping
from pathlib import Path

import onnx

from lgbatch.export import onnx_graph as graph
from lgbatch.export import parity, quantize, reference
from lgbatch.export.fp16 import fp16
from lgbatch.export.lightglue import graphs as matcher
from lgbatch.export.onnx_graph import to_onnx
from lgbatch.runtime.registry import Kind, family, stage_file

Content = onnx.ModelProto | quantize.Arrays
TOLERANCE: dict[Kind, float] = {"stages": 1e-2, "stages-fp16": 0.3, "stages-int8": 0.3}
"""Of a layer's numbers, decisions and scores, when what goes in is the reference's. In half precision the numbers were
wrong by 0.06 (DISK) and 0.14 (ALIKED), the decisions by 0.013."""


def build(extractor: str, kind: Kind, state: reference.State) -> dict[str, tuple[str, Content]]:
    """The files of a model: their names, which of INTERFACE each is, and what is in them.

    A model of one file is called "". Raises KeyError when the state dict is another network's.
    """
    if kind == "extractor":
        network = importlib.import_module(f"lgbatch.export.networks.{family(extractor)}")
        return {"": (kind, to_onnx(network.graph(state)))}
    if kind == "matcher":
        return {"": (kind, matcher.single(state))}
    if kind == "stages-int8":
        return {stage_file(name, what, "int8"): (what, made) for name, what, made in matcher.stages_int8(state)}
    convert = fp16 if kind == "stages-fp16" else lambda model: model
    return {stage_file(name, what, "fp32"): (what, convert(made)) for name, what, made in matcher.stages(state)}


def save(content: Content, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a file of a model."""
    if isinstance(content, onnx.ModelProto):
        graph.save(content, path, metadata)
    else:
        quantize.save(content, path, metadata)


def compare(extractor: str, kind: Kind, path: Path, state: reference.State) -> parity.Figures:
    """How far a written model is from its reference. Raises ModelError when it is more than rounding."""
    if kind == "extractor":
        expect = getattr(reference, family(extractor))
        return parity.extractor(path, lambda image, most: expect(state, image, most))
    if kind == "matcher":
        return parity.matcher(path, state)
    return parity.stages(path, state, tolerance=TOLERANCE[kind])
