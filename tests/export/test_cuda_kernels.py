"""Every node of the models for a GPU has a CUDA kernel of its version and type, by a table of such kernels."""

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto

from lgbatch.config import Settings
from lgbatch.export.build import build
from lgbatch.export.extractors import EXTRACTORS as NETWORKS
from lgbatch.export.weights.catalog import WEIGHTS
from lgbatch.export.weights.find import find_weights
from lgbatch.export.weights.state import load_state
from lgbatch.runtime.registry import HALF_TENSORS, Kind, model_path

# Operator, the version of its kernel, and the types of the first input (f float32, h float16, i int64, b bool), for the
# operators that occur. They are the kernels that the CUDA provider of onnxruntime-gpu 1.31.1 registers
# (onnxruntime/core/providers/cuda/cuda_execution_provider.cc), read off the nodes that it takes.
KERNELS = """
Abs 13 fi / Add 14 fhi / And 7 b / ArgMax 13 f / Attention 24 fh / AveragePool 19 f / Cast 19 bfi / Cast 24 fh
Clip 13 fi / Concat 13 fhi / Conv 11 f / Cos 22 f / DeformConv 19 f / DepthToSpace 13 f / Div 14 fi / Equal 19 bfi
Exp 13 f / Expand 13 fi / Floor 13 f / Gather 13 fhi / GatherElements 13 bfi / GatherND 13 f / Gelu 20 fh
Greater 13 fi / GreaterOrEqual 16 fi / GridSample 20 f / InstanceNormalization 6 f / LayerNormalization 17 fh
Less 13 fi / MatMul 13 fh
Max 13 fi / MaxPool 12 f / Min 13 i / Mod 13 i / Mul 14 fi / Neg 13 f / Not 1 b / Or 7 b / Pad 19 f / Pow 15 f
PRelu 16 f / Range 11 i / ReduceL2 18 f / ReduceMax 20 fi / ReduceMean 18 f / ReduceSum 13 fi / Relu 14 f
Reshape 19 bfi / Reshape 24 fh / Resize 19 f / RotaryEmbedding 23 fh / Selu 6 f / Shape 19 fi / Shape 24 fh
Sigmoid 13 f / Sin 22 f / Slice 13 f / Softmax 13 f / Split 18 f / Sqrt 13 f / Squeeze 13 fi / Squeeze 24 i / Sub 14 fi
TopK 11 f / Transpose 13 f / Transpose 24 f / Unsqueeze 13 bfi / Unsqueeze 24 bfi / Where 16 b
"""
TYPES = {TensorProto.FLOAT: "f", TensorProto.FLOAT16: "h", TensorProto.INT64: "i", TensorProto.BOOL: "b"}
EXTRACTORS = ("disk", Settings().extractor)


def table() -> set[str]:
    entries = (entry.split() for line in KERNELS.strip().splitlines() for entry in line.split(" / "))
    return {f"{operator} {version} {kind}" for operator, version, kinds in entries for kind in kinds}


def nodes(model: onnx.ModelProto) -> set[str]:
    """The nodes of a model as the table names them."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.output, *graph.value_info)}
    types |= {initializer.name: initializer.data_type for initializer in graph.initializer}
    opset = model.opset_import[0].version
    return {
        f"{node.op_type} {onnx.defs.get_schema(node.op_type, opset).since_version} {TYPES[types[node.input[0]]]}"
        for node in graph.node
    }


@pytest.mark.weights
@pytest.mark.parametrize("kind", ["stages", "stages-fp16"])
@pytest.mark.parametrize("extractor", EXTRACTORS)
def test_every_node_of_lightglue_has_a_cuda_kernel(models: Path, extractor: str, kind: Kind) -> None:
    for file in model_path(models, extractor, kind).iterdir():
        assert nodes(onnx.load(file)) <= table(), file.name


@pytest.mark.weights
@pytest.mark.slow
@pytest.mark.parametrize("extractor", EXTRACTORS)
def test_every_node_of_an_extractor_has_a_cuda_kernel(models: Path, extractor: str) -> None:
    weights = find_weights(WEIGHTS[NETWORKS[extractor]["extractor"]], cache=models / "weights")
    _, model = build(extractor, "extractor", load_state(weights))[""]
    assert isinstance(model, onnx.ModelProto)
    assert nodes(model) <= table()


@pytest.mark.weights
@pytest.mark.parametrize("extractor", EXTRACTORS)
def test_layers_in_half_precision_cast_only_the_points_that_decisions_read(models: Path, extractor: str) -> None:
    for file in model_path(models, extractor, "stages-fp16").iterdir():
        graph = onnx.load(file).graph
        casts = [node for node in graph.node if node.op_type == "Cast"]
        assert len(casts) <= {"stem": 3, "pack": 0, "layer8": 0}.get(file.stem, 2), file.name
        points = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
        for name in HALF_TENSORS & points.keys():
            assert points[name] == TensorProto.FLOAT16
