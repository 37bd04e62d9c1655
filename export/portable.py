"""Models for other programs: end to end, in half or 8-bit precision, for one size of photos, with fixed counts.

Imports torch, so it is imported only when exporting.
"""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import onnx
import torch

from lgbatch.export import reference
from lgbatch.export.end2end import end2end
from lgbatch.export.fp16 import fp16
from lgbatch.export.lightglue import graphs as matcher
from lgbatch.export.lightglue.blocks import OPSET
from lgbatch.export.onnx_graph import Graph, fixed_input, to_onnx, with_default
from lgbatch.export.quantize import int8
from lgbatch.runtime.registry import family


@dataclass(frozen=True, kw_only=True)
class Form:
    """What such a model is to be like."""

    end2end: bool = False
    """One graph from photos to matches, instead of the extractor, the single-graph matcher and the stages."""
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    size: tuple[int, int] | None = None
    """(height, width) of all photos; None: any, and in each run another."""
    batch: int | None = None
    """Photos, or pairs, of a run; None: any number."""
    max_keypoints: int | None = None
    """Most keypoints of a photo; None: an input of the model."""
    opset: int | None = None
    """Version of ONNX's operators, 18 or more; None: the one that each graph is best in."""


State = reference.State
Named = Iterator[tuple[str, str, onnx.ModelProto]]
"""File name without .onnx, kind, and graph."""


def build(extractor: str, form: Form, weights: State | None, matcher_weights: State | None) -> Named:
    """The graphs of a form, of the extractor, its LightGlue, or both: of what there are weights.

    Raises KeyError when a state dict is another network's.
    """
    network = None if weights is None else _network(extractor, form, weights)
    tail = "" if form.precision == "fp32" else f"-{form.precision}"
    convert = {"fp32": lambda model: model, "fp16": fp16, "int8": int8}[form.precision]

    opset = form.opset or OPSET

    def finished(model: onnx.ModelProto, network: Graph) -> onnx.ModelProto:
        """What goes for extractors: constants, and defaults of inputs, are as they are in any precision."""
        model = convert(model)
        if form.max_keypoints:
            model = fixed_input(model, "max_keypoints", form.max_keypoints)
        return with_default(model, "detection_threshold", network.inputs["detection_threshold"])

    if form.end2end:
        assert network is not None and matcher_weights is not None  # the caller looks
        yield f"{extractor}-end2end{tail}", "end2end", finished(end2end(network, matcher_weights, opset), network)
        return
    if network is not None and form.precision != "int8":  # its work is convolutions, which are left as they are
        yield f"{extractor}-extractor{tail}", "extractor", finished(to_onnx(network), network)
    if matcher_weights is not None:
        name = family(extractor)
        yield f"{name}-matcher{tail}", "matcher", convert(matcher.single(matcher_weights, opset))
        for stage, kind, model in matcher.stages(matcher_weights, opset=opset):
            yield f"{name}-stages{tail}/{stage}", kind, convert(model)


def _network(extractor: str, form: Form, weights: State) -> Graph:
    """The extractor, for one size of photos, or one number of them, where that is asked for; its threshold is an
    input.
    """
    module = importlib.import_module(f"lgbatch.export.networks.{family(extractor)}")
    network: Graph = module.graph(weights, form.opset or module.OPSET)
    image = network.inputs["image"]
    shape = (form.batch or image.shape[0], 3, *(form.size or image.shape[2:]))
    free = [axis for axis in network.dynamic["image"] if not (form.batch if axis == 0 else form.size)]
    threshold = torch.tensor(module.THRESHOLD, dtype=torch.float32)
    inputs = {**network.inputs, "image": torch.rand(shape), "detection_threshold": threshold}
    return replace(network, inputs=inputs, dynamic={**network.dynamic, "image": free})
