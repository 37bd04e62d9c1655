"""Weights of linear layers in 8 bits: one scale for each output, symmetric, rounded to the nearest.

The graph stays as it was, but for a DequantizeLinear before each product. A runtime that has 8-bit products
(OpenVINO) takes the two together, and rounds what comes in row by row as it goes; others multiply as before.
"""

import numpy as np
import onnx
from onnx import helper, numpy_helper

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
        if values.ndim != 2 or values.shape[1] < LEAST_OUTPUTS:
            continue
        scales = np.maximum(np.abs(values).max(0), np.finfo(np.float32).tiny).astype(np.float32) / np.float32(127)
        rounded = np.round(values / scales).astype(np.int8)
        graph.initializer.remove(weights[name])
        graph.initializer.append(numpy_helper.from_array(rounded, f"{name}.int8"))
        graph.initializer.append(numpy_helper.from_array(scales, f"{name}.scales"))
        parts = [f"{name}.int8", f"{name}.scales"]
        nodes.append(helper.make_node("DequantizeLinear", parts, [name], f"{name}.dequantize", axis=1))
    old = list(graph.node)
    del graph.node[:]
    graph.node.extend(nodes + old)
    return copy
