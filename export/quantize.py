"""8-bit weights of linear layers: symmetric, one scale per output channel, rounded to the nearest.

For lgbatch's own kernels the weights are written as plain arrays (.npz). For other programs the graph stays the same
except for a DequantizeLinear before each product: a runtime with 8-bit products may fuse the two, others multiply in
fp32 as before.
"""

import json
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import nn

Arrays = Mapping[str, NDArray[Any]]
"""The parameters of a module, by name."""
MIN_OUTPUTS = 64
"""Matrices with fewer outputs, such as those for confidence and matchability, are not quantized: no gain."""


def int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a model whose weight matrices (in, out) are int8, with a float32 scale per column."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    weights = {initializer.name: initializer for initializer in graph.initializer}
    dequantize = []
    for name in dict.fromkeys(node.input[1] for node in graph.node if node.op_type == "MatMul"):
        if name not in weights:
            continue
        values = numpy_helper.to_array(weights[name])
        if not _is_quantizable(values):
            continue
        quantized, scales = _quantize(values)
        graph.initializer.remove(weights[name])
        graph.initializer.append(numpy_helper.from_array(quantized, f"{name}.int8"))
        graph.initializer.append(numpy_helper.from_array(scales, f"{name}.scales"))
        inputs = [f"{name}.int8", f"{name}.scales"]
        dequantize.append(helper.make_node("DequantizeLinear", inputs, [name], f"{name}.dequantize", axis=1))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend(dequantize + nodes)
    return copy


def to_arrays(module: nn.Module, exact: Container[str] = ()) -> Arrays:
    """Return the parameters of a module by name.

    A matrix becomes two arrays, unless it is in `exact`: `<name>.int8` (in, out) and `<name>.scales` (out,) float32.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for name, parameter in module.state_dict().items():
        values = parameter.numpy()
        if name not in exact and _is_quantizable(values):
            arrays[f"{name}.int8"], arrays[f"{name}.scales"] = _quantize(values)
        else:
            arrays[name] = values
    return arrays


def load_dequantized(path: Path) -> dict[str, torch.Tensor]:
    """Read a file written by `save` as a state dict; 8-bit matrices are dequantized."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files if name != "metadata"}
    names = [name.removesuffix(".int8") for name in arrays if name.endswith(".int8")]
    dequantized = {name: arrays.pop(f"{name}.int8") * arrays.pop(f"{name}.scales") for name in names}
    return {name: torch.from_numpy(values) for name, values in (arrays | dequantized).items()}


def save(arrays: Arrays, path: Path, metadata: Mapping[str, str]) -> None:
    """Write arrays and metadata to an .npz file. Creates the folder if necessary."""
    path.parent.mkdir(parents=True, exist_ok=True)
    contents: dict[str, Any] = {**arrays, "metadata": np.array(json.dumps(dict(metadata)))}
    np.savez(path, **contents)


def _is_quantizable(values: NDArray[Any]) -> bool:
    return values.ndim == 2 and values.shape[1] >= MIN_OUTPUTS


def _quantize(values: NDArray[Any]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return the int8 matrix (in, out) and the scales of its columns (out,)."""
    scales = np.maximum(np.abs(values).max(0), np.finfo(np.float32).tiny).astype(np.float32) / np.float32(127)
    return np.round(values / scales).astype(np.int8), scales
