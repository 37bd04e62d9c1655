"""Weights of linear layers in 8 bits: one scale for each output, symmetric, rounded to the nearest.

For the engine's own kernels they are written as plain arrays. For other programs the graph stays as it was, but for a
DequantizeLinear before each product: a runtime that has 8-bit products may take the two together, and others multiply
as before.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import nn

Arrays = Mapping[str, NDArray[Any]]
LEAST_OUTPUTS = 64
"""Of a matrix that is worth it; smaller ones, such as those that decide, stay as they are."""


def int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a model whose weight matrices (in, out) are int8, with a float32 scale for each column."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    weights = {slot.name: slot for slot in graph.initializer}
    nodes = []
    for name in dict.fromkeys(node.input[1] for node in graph.node if node.op_type == "MatMul"):
        if name not in weights:
            continue
        values = numpy_helper.to_array(weights[name])
        if not _worth_it(values):
            continue
        rounded, scales = _rounded(values)
        graph.initializer.remove(weights[name])
        graph.initializer.append(numpy_helper.from_array(rounded, f"{name}.int8"))
        graph.initializer.append(numpy_helper.from_array(scales, f"{name}.scales"))
        parts = [f"{name}.int8", f"{name}.scales"]
        nodes.append(helper.make_node("DequantizeLinear", parts, [name], f"{name}.dequantize", axis=1))
    old = list(graph.node)
    del graph.node[:]
    graph.node.extend(nodes + old)
    return copy


def arrays(module: nn.Module, *, rounded: bool) -> Arrays:
    """The parameters of a module by name; of a matrix, if `rounded`, `name.int8` (in, out) and `name.scales` (out,)."""
    found: dict[str, NDArray[Any]] = {}
    for name, parameter in module.state_dict().items():
        values = parameter.numpy()
        if rounded and _worth_it(values):
            found[f"{name}.int8"], found[f"{name}.scales"] = _rounded(values)
        else:
            found[name] = values
    return found


def restored(path: Path) -> dict[str, torch.Tensor]:
    """The parameters again from a file of `save`, as what they have become in 8 bits."""
    with np.load(path, allow_pickle=False) as file:
        found = {name: file[name] for name in file.files if name != "metadata"}
    names = [name.removesuffix(".int8") for name in found if name.endswith(".int8")]
    rounded = {name: found.pop(f"{name}.int8") * found.pop(f"{name}.scales") for name in names}
    return {name: torch.from_numpy(values) for name, values in (found | rounded).items()}


def save(found: Arrays, path: Path, metadata: Mapping[str, str]) -> None:
    """Write them with their metadata, making the folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    contents: dict[str, Any] = {**found, "metadata": np.array(json.dumps(dict(metadata)))}
    np.savez(path, **contents)


def _worth_it(values: NDArray[Any]) -> bool:
    return values.ndim == 2 and values.shape[1] >= LEAST_OUTPUTS


def _rounded(values: NDArray[Any]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """A matrix (in, out), and the scales of its columns."""
    scales = np.maximum(np.abs(values).max(0), np.finfo(np.float32).tiny).astype(np.float32) / np.float32(127)
    return np.round(values / scales).astype(np.int8), scales
