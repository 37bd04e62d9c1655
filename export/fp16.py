"""The heavy operators of a graph in half precision, everything between them in single.

Convolutions, products with weights, and attention take nearly all the time, and half precision is what a GPU does
them fastest in; their sums stay within its range. Positions, thresholds, normalisations, exponentials and the
choice of keypoints stay in single precision, so a keypoint's coordinates lose nothing however large the photo is; the
score maps that it is chosen from are made in half. Inputs and
outputs are as before. A general converter would turn these too, or leave out operators that it does not know.
"""

from collections.abc import Set

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HEAVY = ("Conv", "MatMul", "Gemm")
"""With weights; attention has none of its own."""
PRECISE = ("frequencies", "project", "matchability", "both")
"""In the names of weights that stay in single precision: what positions go through, and what decides."""


def fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a model whose heavy operators with weights compute in half precision, attention included."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    weights = {slot.name: slot for slot in graph.initializer}
    halved: set[str] = set()
    nodes = []
    for node in graph.node:
        if not _is_heavy(node, weights.keys()):
            nodes.append(node)
            continue
        for i, name in enumerate(node.input):
            if not name or (node.op_type == "Attention" and i > 2):  # what follows are lengths
                continue
            small = f"{name}.fp16"
            if small not in halved:
                halved.add(small)
                if name in weights:
                    values = numpy_helper.to_array(weights[name]).astype(np.float16)
                    graph.initializer.append(numpy_helper.from_array(values, small))
                else:
                    nodes.append(helper.make_node("Cast", [name], [small], f"{small}.cast", to=TensorProto.FLOAT16))
            node.input[i] = small
        result = node.output[0]
        node.output[0] = f"{result}.half"
        nodes += [node, helper.make_node("Cast", [node.output[0]], [result], f"{result}.cast", to=TensorProto.FLOAT)]
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in graph.node for name in node.input} | {slot.name for slot in graph.output}
    for name, slot in weights.items():
        if name not in used:
            graph.initializer.remove(slot)
    del graph.value_info[:]  # what it says of types is no longer true
    return copy


def _is_heavy(node: onnx.NodeProto, weights: Set[str]) -> bool:
    if node.op_type == "Attention":
        return True
    weight = node.input[1] if node.op_type in HEAVY else ""
    return weight in weights and not any(name in weight for name in PRECISE)
