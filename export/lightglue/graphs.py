"""The ONNX graphs of LightGlue: stages for lgbatch, and a single graph for other programs."""

from collections.abc import Iterable, Iterator

import onnx
import torch
from torch import nn

from lgbatch.export import reference
from lgbatch.export.lightglue.blocks import OPSET, descriptor_dim, operators, shape_of
from lgbatch.export.lightglue.stages import Head, Layer, Matcher, Pack, Stem
from lgbatch.export.onnx_graph import Graph, to_onnx, with_weights
from lgbatch.export.quantize import Arrays, to_arrays
from lgbatch.runtime.registry import INTERFACE, PACK, stage_names

EXACT: dict[type[nn.Module], tuple[str, ...]] = {
    Stem: ("project.weight", "self_block.ffn.outside.weight"),
    Layer: ("self_block.ffn.outside.weight", "cross_block.ffn.outside.weight"),
    Head: ("project.weight",),
}
"""Matrices that the kernels multiply in single precision or bfloat16."""


def single_graph(state: reference.State, opset: int = OPSET) -> onnx.ModelProto:
    """Return the single-graph matcher. Raises KeyError if the state dict belongs to another network."""
    return to_onnx(_graph(Matcher(state, operators(opset)), "matcher", state, opset))


def stages(state: reference.State, opset: int = OPSET) -> Iterator[tuple[str, str, onnx.ModelProto]]:
    """Yield the stages, and the pack stage for GPUs: name, graph (a key of INTERFACE) and model of each."""
    pack = [(stage, graph, Pack()) for stage, graph in PACK.items()]
    return _traced([*stage_modules(state, opset), *pack], state, opset)


def stages_int8(state: reference.State) -> Iterator[tuple[str, str, Arrays]]:
    """Yield the stages for the 8-bit kernels, as arrays."""
    for stage, graph, module in stage_modules(state, OPSET):
        yield stage, graph, to_arrays(module, EXACT.get(type(module), ()))


def stage_modules(state: reference.State, opset: int) -> Iterator[tuple[str, str, nn.Module]]:
    """Yield the stages as PyTorch modules: name, graph (a key of INTERFACE) and module of each."""
    ops, depth = operators(opset), shape_of(state).layers
    for stage, graph in stage_names(depth).items():
        if stage == "stem":
            yield stage, graph, Stem(state, ops)
        elif stage.startswith("head"):
            yield stage, graph, Head(state, int(stage.removeprefix("head")))
        else:
            index = int(stage.removeprefix("layer"))
            yield stage, graph, Layer(state, index, ops, decide=index < depth - 1)


def _traced(
    modules: Iterable[tuple[str, str, nn.Module]], state: reference.State, opset: int
) -> Iterator[tuple[str, str, onnx.ModelProto]]:
    """Convert modules to ONNX. Trace one module per graph and copy the weights of the others into it."""
    traced: dict[str, onnx.ModelProto] = {}
    for stage, graph, module in modules:
        if graph not in traced:
            traced[graph] = to_onnx(_graph(module, graph, state, opset))
        yield stage, graph, with_weights(traced[graph], module)


def _graph(module: nn.Module, graph: str, state: reference.State, opset: int) -> Graph:
    """Return the arguments of the tracing, with example inputs for a key of INTERFACE."""
    names, outputs = INTERFACE[graph]
    shape = shape_of(state)
    channels = {
        "keypoints": state["posenc.Wr.weight"].shape[1],
        "descriptors": descriptor_dim(state),
        "x": shape.width,
        "cosines": shape.head_dim // 2,
        "sines": shape.head_dim // 2,
    }
    inputs: dict[str, torch.Tensor] = {}
    dynamic: dict[str, tuple[int, ...]] = {}
    for name in names:
        # Unequal numbers of points, so that the exporter does not infer that both sides have the same.
        base, points = name.rstrip("01"), 40 if name.endswith("1") else 30
        if base in channels:
            inputs[name], dynamic[name] = torch.rand(2, points, channels[base]), (0, 1)
        elif base == "size":
            inputs[name], dynamic[name] = torch.rand(2, 2), (0,)
        elif base == "lengths":
            inputs[name], dynamic[name] = torch.tensor([points, 20]), (0,)
        elif base == "rows":
            inputs[name], dynamic[name] = torch.randint(60, (3, 25)), (0, 1)
        else:
            inputs[name] = torch.tensor(0.1)
    return Graph(module, inputs, dynamic, outputs, opset=opset)
