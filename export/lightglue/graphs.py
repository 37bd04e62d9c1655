"""LightGlue's graphs as they are written: in stages for the engine, and as a single one for other programs."""

from collections.abc import Iterable, Iterator

import onnx
import torch
from torch import nn

from lgbatch.export import reference
from lgbatch.export.lightglue.blocks import OPSET, operators, shape_of
from lgbatch.export.lightglue.stages import Head, Layer, Matcher, Pack, Stem
from lgbatch.export.onnx_graph import Graph, to_onnx, with_weights
from lgbatch.export.quantize import Arrays, arrays
from lgbatch.runtime.registry import INTERFACE, PACK, stage_names


def single(state: reference.State, opset: int = OPSET) -> onnx.ModelProto:
    """The single-graph matcher. Raises KeyError when the state dict is another network's."""
    return to_onnx(_graph(Matcher(state, operators(opset)), "matcher", state, opset))


def stages(state: reference.State, opset: int = OPSET) -> Iterator[tuple[str, str, onnx.ModelProto]]:
    """The same network in stages: name, kind and model of each."""
    pack = [(stage, kind, Pack()) for stage, kind in PACK.items()]
    return _traced([*modules(state, opset), *pack], state, opset)


def stages_int8(state: reference.State) -> Iterator[tuple[str, str, onnx.ModelProto | Arrays]]:
    """The same for the engine in 8 bits: layers and heads are what its kernels read, the stem is as it was."""
    stem, *others = modules(state, OPSET)
    yield from _traced([stem], state, OPSET)
    for stage, kind, module in others:
        yield stage, kind, arrays(module, rounded=isinstance(module, Layer))


def modules(state: reference.State, opset: int) -> Iterator[tuple[str, str, nn.Module]]:
    """The stages in PyTorch: name, kind and module of each."""
    by, depth = operators(opset), shape_of(state).layers
    for stage, kind in stage_names(depth).items():
        if stage == "stem":
            yield stage, kind, Stem(state, by)
        elif stage.startswith("head"):
            yield stage, kind, Head(state, int(stage[-1]))
        else:
            index = int(stage[-1])
            yield stage, kind, Layer(state, index, by, decide=index < depth - 1)


def _traced(
    modules: Iterable[tuple[str, str, nn.Module]], state: reference.State, opset: int
) -> Iterator[tuple[str, str, onnx.ModelProto]]:
    """As ONNX; modules of a kind are traced once."""
    traced: dict[str, onnx.ModelProto] = {}
    for stage, kind, module in modules:
        if kind not in traced:
            traced[kind] = to_onnx(_graph(module, kind, state, opset))
        yield stage, kind, with_weights(traced[kind], module)


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
        elif what == "rows":
            inputs[name], free[name] = torch.randint(60, (3, 25)), (0, 1)
        else:
            inputs[name] = torch.tensor(0.1)
    return Graph(module, inputs, free, outputs, opset=opset)
