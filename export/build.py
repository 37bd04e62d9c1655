"""What is written and compared for each kind of model. Imports torch, so it is imported only when exporting."""

import importlib
from pathlib import Path

import onnx

from lgbatch.export import matcher, parity, reference
from lgbatch.export.graph import to_onnx
from lgbatch.models import Kind, family


def build(extractor: str, kind: Kind, state: reference.State) -> dict[str, tuple[str, onnx.ModelProto]]:
    """The files of a model: their names, which of INTERFACE each is, and the graphs.

    A model of one file is called "". Raises KeyError when the state dict is another network's.
    """
    if kind == "extractor":
        network = importlib.import_module(f"lgbatch.export.{family(extractor)}")
        return {"": (kind, to_onnx(network.graph(state)))}
    if kind == "matcher":
        return {"": (kind, matcher.single(state))}
    stages = matcher.stages(state, quantized=kind == "stages-int8")
    return {f"{stage}.onnx": (graph, model) for stage, graph, model in stages}


def compare(extractor: str, kind: Kind, path: Path, state: reference.State) -> parity.Figures:
    """How far a written model is from its reference. Raises ModelError when it is more than rounding."""
    if kind == "extractor":
        expect = getattr(reference, family(extractor))
        return parity.extractor(path, lambda image, most: expect(state, image, most))
    if kind == "matcher":
        return parity.matcher(path, state)
    return parity.stages(path, state, tolerance=0.3 if kind == "stages-int8" else 1e-2)
