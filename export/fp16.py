"""Mixed precision: the heavy operators of a graph in half precision, everything else in single precision.

Convolutions, products with weights, and attention take nearly all of the time. GPUs compute them fastest in half
precision, and their sums stay within its range. Keypoint coordinates, thresholds, normalisations, exponentials and the
selection of keypoints stay in single precision, so coordinates lose no accuracy in large photos; the score maps that
the keypoints are selected from are computed in half precision. A general converter would convert the precise operators
too, or skip operators that it does not know.

The stages that lgbatch runs on a GPU go further: within a layer the operators between the heavy ones are in half
precision too, and so are the tensors of the points that pass from stage to stage. Only the decisions and the assignment
are computed in single precision, and a layer has a handful of casts. Normalisation is one operator, which ONNX Runtime
computes in single precision inside.
"""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from lgbatch.runtime.registry import HALF_TENSORS

HEAVY = ("Conv", "MatMul", "Gemm")
"""Operators converted if their second input is a weight. Attention, which has no weights, is always converted."""
LIGHT = ("Add", "Concat", "RotaryEmbedding", "LayerNormalization", "Gelu")
"""Operators of a layer converted if an input is in half precision anyway."""
PRECISE = ("frequencies", "project", "matchability", "both")
"""Weights whose name contains one of these stay in single precision: those of the positional encoding, of the
projections of descriptors, and of confidence and matchability."""


_HALF, _SINGLE = ".fp16", ".fp32"
"""Suffixes of the other precision of a tensor. A tensor that is an input or output has none in its own precision."""


def fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a model whose attention and heavy operators with weights compute in half precision.

    Inputs and outputs keep their types.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return _converted(copy, light=())


def fp16_stage(graph: str, model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a stage whose inputs and outputs among HALF_TENSORS are float16. `graph` is a key of INTERFACE.

    The stem and the layers compute in half precision, the heads in single precision; `pack` only moves numbers.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for value in (*copy.graph.input, *copy.graph.output):
        if value.name in HALF_TENSORS:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
            if graph != "pack":
                _rename(copy.graph, value.name, f"{value.name}{_SINGLE}")
    if graph == "pack":
        del copy.graph.value_info[:]
        return copy
    return _converted(copy, light=() if graph == "head" else LIGHT)


class _Converter:
    """A graph in the course of its conversion: its nodes, and which precisions of each tensor they make available."""

    def __init__(self, graph: GraphProto) -> None:
        self.weights = {initializer.name: initializer for initializer in graph.initializer}
        self.nodes: list[NodeProto] = []
        self._graph = graph
        self._half, self._single = {value.name for value in graph.input}, set[str]()

    def is_half(self, name: str) -> bool:
        """Whether a tensor, by its name in single precision, is available in half precision."""
        return _half_name(name) in self._half

    def to_half(self, name: str) -> str:
        """Return the name of a tensor in half precision. Casts it, once."""
        half = _half_name(name)
        if half not in self._half:
            self._half.add(half)
            self._single.add(name)
            if name in self.weights:
                values = numpy_helper.to_array(self.weights[name]).astype(np.float16)
                self._graph.initializer.append(numpy_helper.from_array(values, half))
            else:
                self._cast(name, half, TensorProto.FLOAT16)
        return half

    def to_single(self, name: str) -> None:
        """Make a tensor available in single precision, under its name. Casts it, once, if it is in half precision."""
        if self.is_half(name) and name not in self._single:
            self._single.add(name)
            self._cast(_half_name(name), name, TensorProto.FLOAT)

    def computed_in_half(self, name: str) -> str:
        """Record that a tensor is computed in half precision only, and return its name."""
        self._half.add(_half_name(name))
        return _half_name(name)

    def _cast(self, source: str, target: str, to: int) -> None:
        self.nodes.append(helper.make_node("Cast", [source], [target], f"{target}.cast", to=to))


def _converted(model: onnx.ModelProto, *, light: Sequence[str]) -> onnx.ModelProto:
    """Convert a model in place. Its half-precision inputs and outputs have the suffix _SINGLE in the nodes."""
    graph, converter = model.graph, _Converter(model.graph)
    for node in graph.node:
        in_half = _is_heavy(node, converter) or (
            node.op_type in light and any(converter.is_half(name) for name in node.input)
        )
        for i, name in enumerate(node.input):
            if in_half and name and not (node.op_type == "Attention" and i > 2):  # its other inputs are lengths
                node.input[i] = converter.to_half(name)
            else:
                converter.to_single(name)
        if in_half:
            node.output[0] = converter.computed_in_half(node.output[0])
        converter.nodes.append(node)
    for output in graph.output:
        if output.type.tensor_type.elem_type == TensorProto.FLOAT16:
            converter.to_half(f"{output.name}{_SINGLE}")
        else:
            converter.to_single(output.name)
    del graph.node[:]
    graph.node.extend(converter.nodes)
    _remove_unused(graph, converter)
    del graph.value_info[:]  # its types are out of date
    return model


def _half_name(name: str) -> str:
    return name.removesuffix(_SINGLE) if name.endswith(_SINGLE) else f"{name}{_HALF}"


def _rename(graph: GraphProto, old: str, new: str) -> None:
    """Rename a tensor in all nodes of a graph."""
    for node in graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == old:
                    names[i] = new


def _is_heavy(node: NodeProto, converter: _Converter) -> bool:
    if node.op_type == "Attention":
        return True
    weight = node.input[1] if node.op_type in HEAVY else ""
    return weight in converter.weights and not any(name in weight for name in PRECISE)


def _remove_unused(graph: GraphProto, converter: _Converter) -> None:
    """Remove the single-precision weights that no node reads any more."""
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    for initializer in [i for i in graph.initializer if i.name in converter.weights and i.name not in used]:
        graph.initializer.remove(initializer)
