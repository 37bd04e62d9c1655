"""Build, save and compare one model of each kind. Imports torch: import this module only to export."""

import functools
import importlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import onnx

from lgbatch.export import onnx_graph, parity, quantize, reference
from lgbatch.export.fp16 import fp16_stage
from lgbatch.export.lightglue import graphs as matcher
from lgbatch.runtime.registry import Kind, family, stage_file

Content = onnx.ModelProto | quantize.Arrays
"""Content of an .onnx file, or of an .npz file for the 8-bit kernels."""
TOLERANCE: dict[Kind, float] = {"stages": 1e-2, "stages-fp16": 0.3, "stages-int8": 0.3}
"""Largest error of a stage's embeddings, decisions and scores, given the reference's inputs. Measured in half
precision: embeddings 0.06 (DISK) and 0.14 (ALIKED), decisions 0.013."""


def build(extractor: str, kind: Kind, state: reference.State) -> dict[str, tuple[str, Content]]:
    """Return the files of a model: by file name, the graph (a key of registry.INTERFACE) and the content.

    The file name is "" for a model of a single file. Raises KeyError if the state dict belongs to another network.
    """
    if kind == "extractor":
        network = _network(extractor)
        return {"": (kind, onnx_graph.to_onnx(network.graph(state)))}
    if kind == "extractor-kernels":
        network = _network(extractor).network(state)
        return {"": (kind, quantize.to_arrays(network, exact=network.state_dict()))}
    if kind == "matcher":
        return {"": (kind, matcher.single_graph(state))}
    if kind == "stages-int8":
        return {stage_file(stage, "int8"): (graph, content) for stage, graph, content in matcher.stages_int8(state)}
    models = matcher.stages(state)
    if kind == "stages-fp16":
        models = ((stage, graph, fp16_stage(graph, model)) for stage, graph, model in models)
    return {stage_file(stage, "fp32"): (graph, model) for stage, graph, model in models}


def save(content: Content, path: Path, metadata: Mapping[str, str]) -> None:
    """Write one file of a model with its metadata."""
    if isinstance(content, onnx.ModelProto):
        onnx_graph.save(content, path, metadata)
    else:
        quantize.save(content, path, metadata)


def compare(extractor: str, kind: Kind, path: Path, state: reference.State) -> parity.Figures:
    """Measure how far a written model is from its reference. Raises ModelError above the tolerance."""
    if kind == "extractor":
        return parity.extractor(path, parity.onnx_extractor(path), _reference(extractor, state))
    if kind == "extractor-kernels":
        module = _network(extractor).network(state)
        return parity.extractor(path, parity.stored_extractor(path, module), _reference(extractor, state))
    if kind == "matcher":
        return parity.matcher(path, state)
    return parity.stages(path, state, tolerance=TOLERANCE[kind])


def _network(extractor: str) -> ModuleType:
    """The module of lgbatch.export.networks with an extractor's network."""
    return importlib.import_module(f"lgbatch.export.networks.{family(extractor)}")


def _reference(extractor: str, state: reference.State) -> parity.Extract:
    return functools.partial(getattr(reference, family(extractor)), state)
