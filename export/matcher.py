"""LightGlue's graphs as they are written: in stages for the engine, and as a single one for other programs."""

from collections.abc import Iterator

import onnx
import torch
from torch import nn

from lgbatch.export import reference
from lgbatch.export.graph import Graph, to_onnx, with_weights
from lgbatch.export.lightglue import (
    OPSET,
    Head,
    Layer,
    Matcher,
    Operators,
    Stem,
    operators,
    plain_attention,
    shape_of,
)
from lgbatch.export.quantize import int8
from lgbatch.models import INTERFACE, stage_names


def single(state: reference.State, opset: int = OPSET) -> onnx.ModelProto:
    """The single-graph matcher. Raises KeyError when the state dict is another network's."""
    return to_onnx(_graph(Matcher(state, operators(opset)), "matcher", state, opset))


def stages(
    state: reference.State, *, quantized: bool = False, opset: int = OPSET
) -> Iterator[tuple[str, str, onnx.ModelProto]]:
    """The same network in stages: name, kind and model of each. Stages of a kind are traced once.

    Quantized, the layers are as OpenVINO likes them: 8-bit weights, and attention written out.
    """
    by = Operators(attend=plain_attention) if quantized else operators(opset)
    traced: dict[str, onnx.ModelProto] = {}
    for stage, kind in stage_names(shape_of(state).layers).items():
        module = _stage(state, stage, by)
        if kind not in traced:
            traced[kind] = to_onnx(_graph(module, kind, state, opset))
        model = with_weights(traced[kind], module)
        yield stage, kind, int8(model) if quantized and isinstance(module, Layer) else model


def _stage(state: reference.State, stage: str, by: Operators) -> nn.Module:
    if stage == "stem":
        return Stem(state, by)
    index = int(stage[-1])
    return (
        Head(state, index)
        if stage.startswith("head")
        else Layer(state, index, by, decide=index < shape_of(state).layers - 1)
    )


def _graph(module: nn.Module, kind: str, state: reference.State, opset: int) -> Graph:
    names, outputs = INTERFACE[kind]
    shape = shape_of(state)
    dim = state["input_proj.weight"].shape[1] if "input_proj.weight" in state else shape.width
    positions = state["posenc.Wr.weight"].shape[1]
    per_point = {
        "keypoints": positions,
        "descriptors": dim,
        "x": shape.width,
        "cosines": shape.head_dim // 2,
        "sines": shape.head_dim // 2,
    }
    inputs: dict[str, torch.Tensor] = {}
    free: dict[str, tuple[int, ...]] = {}
    for name in names:
        what, points = name.rstrip("01"), 40 if name.endswith("1") else 30  # unequal: neither is taken for the other
        if what in per_point:
            inputs[name], free[name] = torch.rand(2, points, per_point[what]), (0, 1)
        elif what == "size":
            inputs[name], free[name] = torch.rand(2, 2), (0,)
        elif what == "lengths":
            inputs[name], free[name] = torch.tensor([points, 20]), (0,)
        else:
            inputs[name] = torch.tensor(0.1)
    return Graph(module, inputs, free, outputs, opset=opset)
