"""Trace PyTorch modules to ONNX, edit the inputs and weights of traced models, and write them."""

import contextlib
import io
import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from lgbatch.runtime.registry import INTERFACE


@dataclass(frozen=True)
class Graph:
    """A module and the arguments of torch.onnx.export for it."""

    module: nn.Module
    inputs: Mapping[str, Tensor]
    """Example inputs, by name, in the order of the module's arguments."""
    dynamic: Mapping[str, Sequence[int]]
    """Dynamic axes of the inputs, by name."""
    outputs: Sequence[str]
    """Names of the outputs."""
    opset: int


def extractor_graph(network: nn.Module, opset: int) -> Graph:
    """Return the graph of an extractor with dynamic batch, height and width."""
    # The example's sizes are odd and unequal, so that the exporter does not infer equalities between axes.
    inputs = {"image": torch.rand(2, 3, 100, 137), "max_keypoints": torch.tensor(64)}
    return Graph(network, inputs, {"image": (0, 2, 3)}, INTERFACE["extractor"][1], opset=opset)


def to_onnx(graph: Graph) -> onnx.ModelProto:
    """Trace a module to ONNX."""
    # The exporter warns that torchvision is missing, which nothing here needs, and prints graphs as it tries shapes.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    dynamic = torch.export.Dim.DYNAMIC
    shapes = {name: dict.fromkeys(graph.dynamic.get(name, ()), dynamic) for name in graph.inputs}
    with warnings.catch_warnings(), torch.no_grad(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")  # deprecations between torch and its own exporter
        program = torch.onnx.export(
            graph.module.eval(),
            tuple(graph.inputs.values()),
            dynamo=True,
            opset_version=graph.opset,
            dynamic_shapes=shapes,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            verbose=False,
        )
    assert program is not None  # None only with dynamo=False
    return program.model_proto


def with_weights(model: onnx.ModelProto, module: nn.Module) -> onnx.ModelProto:
    """Return a copy of a traced model with the weights of another module of the same structure."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    initializers = {initializer.name: initializer for initializer in copy.graph.initializer}
    for name, value in module.state_dict().items():
        initializers[name].CopyFrom(onnx.numpy_helper.from_array(value.numpy(), name))
    return copy


def fixed_input(model: onnx.ModelProto, name: str, value: int) -> onnx.ModelProto:
    """Return a copy of a model with a scalar integer input replaced by a constant."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    remaining = [graph_input for graph_input in copy.graph.input if graph_input.name != name]
    del copy.graph.input[:]
    copy.graph.input.extend(remaining)
    copy.graph.initializer.append(onnx.numpy_helper.from_array(np.array(value), name))
    return copy


def with_default(model: onnx.ModelProto, name: str, value: Tensor) -> onnx.ModelProto:
    """Return a copy of a model in which an input is optional and defaults to `value`."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.initializer.append(onnx.numpy_helper.from_array(value.numpy(), name))
    return copy


def save(model: onnx.ModelProto, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a model with its metadata. Creates the folder if necessary."""
    onnx.helper.set_model_props(model, dict(metadata))
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save_model(model, path)
