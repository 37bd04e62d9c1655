"""Mixed precision: the heavy operators of a graph in half precision, everything else in single precision.

Convolutions, products with weights, and attention take nearly all of the time. GPUs compute them fastest in half
precision, and their sums stay within its range. Keypoint coordinates, thresholds, normalisations, exponentials and the
selection of keypoints stay in single precision, so coordinates lose no accuracy in large photos; the score maps that
the keypoints are selected from are computed in half precision. Inputs and outputs keep their types. A general
converter would convert the precise operators too, or skip operators that it does not know.
"""

from collections.abc import Set

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HEAVY = ("Conv", "MatMul", "Gemm")
"""Operators converted if their second input is a weight. Attention, which has no weights, is always converted."""
PRECISE = ("frequencies", "project", "matchability", "both")
"""Weights whose name contains one of these stay in single precision: those of the positional encoding, of the
projections of descriptors, and of confidence and matchability."""


def fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a model whose attention and heavy operators with weights compute in half precision."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    weights = {initializer.name: initializer for initializer in graph.initializer}
    converted: set[str] = set()
    nodes = []
    for node in graph.node:
        if not _is_heavy(node, weights.keys()):
            nodes.append(node)
            continue
        for i, name in enumerate(node.input):
            if not name or (node.op_type == "Attention" and i > 2):  # inputs after query, key and value are lengths
                continue
            half = f"{name}.fp16"
            if half not in converted:
                converted.add(half)
                if name in weights:
                    values = numpy_helper.to_array(weights[name]).astype(np.float16)
                    graph.initializer.append(numpy_helper.from_array(values, half))
                else:
                    nodes.append(helper.make_node("Cast", [name], [half], f"{half}.cast", to=TensorProto.FLOAT16))
            node.input[i] = half
        result = node.output[0]
        node.output[0] = f"{result}.half"
        nodes += [node, helper.make_node("Cast", [node.output[0]], [result], f"{result}.cast", to=TensorProto.FLOAT)]
    del graph.node[:]
    graph.node.extend(nodes)
    _remove_unused(graph, weights.keys())
    del graph.value_info[:]  # its types are out of date
    return copy


def _is_heavy(node: onnx.NodeProto, weights: Set[str]) -> bool:
    if node.op_type == "Attention":
        return True
    weight = node.input[1] if node.op_type in HEAVY else ""
    return weight in weights and not any(name in weight for name in PRECISE)


def _remove_unused(graph: onnx.GraphProto, weights: Set[str]) -> None:
    """Remove the single-precision weights that no node reads any more."""
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    for initializer in [i for i in graph.initializer if i.name in weights and i.name not in used]:
        graph.initializer.remove(initializer)
