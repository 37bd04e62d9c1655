"""Models for other programs: end-to-end graphs, fp16 or int8 precision, a fixed photo size, batch or keypoint count.

Imports torch: import this module only to export.
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
class PortableOptions:
    """Options of a portable export."""

    end2end: bool = False
    """Write one graph from two photos to their matches, instead of the extractor, the matcher and the stages."""
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    size: tuple[int, int] | None = None
    """Fixed (height, width) of the photos; None: any, also within one session."""
    batch: int | None = None
    """Fixed batch size, in photos or pairs; None: any."""
    max_keypoints: int | None = None
    """Fixed maximum number of keypoints per photo; None: it remains an input of the model."""
    opset: int | None = None
    """ONNX opset version, at least 18; None: the OPSET of each network's module."""


State = reference.State
NamedModels = Iterator[tuple[str, str, onnx.ModelProto]]
"""File name without ".onnx", kind, and model."""


def build(
    extractor: str, options: PortableOptions, weights: State | None, matcher_weights: State | None
) -> NamedModels:
    """Yield the models of an extractor, its LightGlue or both, depending on the weights that are not None.

    Raises KeyError if a state dict belongs to another network.
    """
    network = None if weights is None else _extractor_graph(extractor, options, weights)
    opset = options.opset or OPSET
    suffix = "" if options.precision == "fp32" else f"-{options.precision}"
    convert = {"fp32": lambda model: model, "fp16": fp16, "int8": int8}[options.precision]

    def finish(model: onnx.ModelProto, network: Graph) -> onnx.ModelProto:
        # After the conversion, so that the constant and the default keep their types in every precision.
        model = convert(model)
        if options.max_keypoints:
            model = fixed_input(model, "max_keypoints", options.max_keypoints)
        return with_default(model, "detection_threshold", network.inputs["detection_threshold"])

    if options.end2end:
        assert network is not None and matcher_weights is not None  # export_portable checks this
        yield f"{extractor}-end2end{suffix}", "end2end", finish(end2end(network, matcher_weights, opset), network)
        return
    if network is not None and options.precision != "int8":  # int8 does not change convolutions
        yield f"{extractor}-extractor{suffix}", "extractor", finish(to_onnx(network), network)
    if matcher_weights is not None:
        name = family(extractor)
        yield f"{name}-matcher{suffix}", "matcher", convert(matcher.single_graph(matcher_weights, opset))
        for stage, kind, model in matcher.stages(matcher_weights, opset=opset):
            yield f"{name}-stages{suffix}/{stage}", kind, convert(model)


def _extractor_graph(extractor: str, options: PortableOptions, weights: State) -> Graph:
    """Return the extractor with fixed axes for `size` and `batch`, and the detection threshold as an input."""
    module = importlib.import_module(f"lgbatch.export.networks.{family(extractor)}")
    network: Graph = module.graph(weights, options.opset or module.OPSET)
    image = network.inputs["image"]
    shape = (options.batch or image.shape[0], 3, *(options.size or image.shape[2:]))
    dynamic = [axis for axis in network.dynamic["image"] if not (options.batch if axis == 0 else options.size)]
    threshold = torch.tensor(module.THRESHOLD, dtype=torch.float32)
    inputs = {**network.inputs, "image": torch.rand(shape), "detection_threshold": threshold}
    return replace(network, inputs=inputs, dynamic={**network.dynamic, "image": dynamic})
