"""A PyTorch module on its way into an ONNX file."""

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
    """What torch.onnx.export is to know of a module."""

    module: nn.Module
    inputs: Mapping[str, Tensor]
    """Example inputs, by name."""
    dynamic: Mapping[str, Sequence[int]]
    """Which axes of them may have any length."""
    outputs: Sequence[str]
    opset: int


def of_extractor(network: nn.Module, opset: int) -> Graph:
    """That of an extractor, for photos of any size and number."""
    # The example's sizes are odd and unequal, so that the exporter takes no equality for granted.
    inputs = {"image": torch.rand(2, 3, 100, 137), "max_keypoints": torch.tensor(64)}
    return Graph(network, inputs, {"image": (0, 2, 3)}, INTERFACE["extractor"][1], opset=opset)


def to_onnx(graph: Graph) -> onnx.ModelProto:
    """Trace the module."""
    # It warns at every call of torchvision, which nothing here needs, and prints whole graphs as it tries shapes.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    free = torch.export.Dim.DYNAMIC
    shapes = {name: dict.fromkeys(graph.dynamic.get(name, ()), free) for name in graph.inputs}
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
    assert program is not None  # it is, with dynamo=True
    return program.model_proto


def with_weights(model: onnx.ModelProto, module: nn.Module) -> onnx.ModelProto:
    """A copy of a traced model that has the weights of another module of the same kind."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    slots = {initializer.name: initializer for initializer in copy.graph.initializer}
    for name, value in module.state_dict().items():
        slots[name].CopyFrom(onnx.numpy_helper.from_array(value.numpy(), name))
    return copy


def fixed_input(model: onnx.ModelProto, name: str, value: int) -> onnx.ModelProto:
    """A copy of a model in which an input of one integer is a constant."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    kept = [slot for slot in copy.graph.input if slot.name != name]
    del copy.graph.input[:]
    copy.graph.input.extend(kept)
    copy.graph.initializer.append(onnx.numpy_helper.from_array(np.array(value), name))
    return copy


def with_default(model: onnx.ModelProto, name: str, value: Tensor) -> onnx.ModelProto:
    """A copy of a model in which an input need not be given, and then has this value."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.initializer.append(onnx.numpy_helper.from_array(value.numpy(), name))
    return copy


def save(model: onnx.ModelProto, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a model with its metadata, making the folder if need be."""
    onnx.helper.set_model_props(model, dict(metadata))
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save_model(model, path)
