"""End-to-end models: one graph from two photos to their matches, an extractor per photo and the single-graph LightGlue.

The exporter cannot trace the whole graph, because the numbers of keypoints are known only at run time. The parts are
traced separately and joined. Both extractors share one copy of the weights.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import onnx
import torch
from torch import Tensor, nn

from lgbatch.export import reference
from lgbatch.export.lightglue.blocks import descriptor_dim, operators
from lgbatch.export.lightglue.stages import Matcher
from lgbatch.export.onnx_graph import Graph, to_onnx
from lgbatch.runtime.registry import INTERFACE

INPUTS, OUTPUTS = INTERFACE["end2end"]
OPTIONAL = ("detection_threshold",)
"""Inputs that exist only if the extractor has them."""
TAIL_OUTPUTS = ("keypoints", "other keypoints", "matches0", "scores")
"""Outputs of the tail, renamed when the parts are joined: its inputs are called keypoints0 and keypoints1 too."""
OUTPUT_SHAPES: dict[str, list[str | int | None]] = {
    "keypoints0": ["B", "K0", 2],
    "keypoints1": ["B", "K1", 2],
    "counts0": ["B"],
    "counts1": ["B"],
    "matches0": ["B", "K0"],
    "scores": ["B", "K0"],
}
INT_OUTPUTS = ("counts0", "counts1", "matches0")


class Tail(nn.Module):
    """Everything after the extraction: matching, and keypoints in pixels of the original photos."""

    def __init__(self, state: reference.State, opset: int) -> None:
        super().__init__()
        self.matcher = Matcher(state, operators(opset))

    def forward(
        self,
        image0: Tensor,
        image1: Tensor,
        keypoints0: Tensor,
        keypoints1: Tensor,
        descriptors0: Tensor,
        descriptors1: Tensor,
        counts0: Tensor,
        counts1: Tensor,
        scales0: Tensor,
        scales1: Tensor,
        threshold: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Match the keypoints of photos resized by `scales`.

        image0 and image1 give only the sizes. keypoints (B, K, 2) in pixels of the resized photos, top-left pixel
        centre (0, 0); descriptors (B, K, C); counts (B,) int64; scales (B, 2), resized over original size along x and
        y; threshold () the minimum score.
        Returns keypoints0 (B, K0, 2) and keypoints1 (B, K1, 2) in pixels of the original photos, matches0 (B, K0)
        int64, -1 for none, and scores (B, K0), 0 for none.
        """
        sizes = [_size(image) for image in (image0, image1)]
        matches0, scores = self.matcher(
            keypoints0, keypoints1, descriptors0, descriptors1, *sizes, counts0.clamp(min=1), counts1.clamp(min=1),
            threshold,
        )  # fmt: skip
        nonempty = ((counts0 > 0) & (counts1 > 0))[:, None]
        original = [(k + 0.5) / s[:, None] - 0.5 for k, s in ((keypoints0, scales0), (keypoints1, scales1))]
        return original[0], original[1], torch.where(nonempty, matches0, -1), torch.where(nonempty, scores, 0.0)


def _size(image: Tensor) -> Tensor:
    """Return (B, 2), width and height, of images (B, 3, H, W)."""
    ones = torch.ones_like(image[:, :2, 0, 0])
    return ones * torch.tensor([image.shape[3], image.shape[2]], dtype=torch.float32)


def end2end(extractor: Graph, state: reference.State, opset: int) -> onnx.ModelProto:
    """Join an extractor and a LightGlue with the weights `state` into one model.

    Inputs: image0 (B, 3, H, W) and image1 (B, 3, H', W') float32, RGB in 0..1; scales0 and scales1 (B, 2), resized over
    original size along x and y; max_keypoints () int64; threshold () float32, the minimum score of a match; and, if the
    extractor has it, detection_threshold () float32, the minimum score of a keypoint.
    Outputs: keypoints0 (B, K0, 2) and keypoints1 (B, K1, 2) in pixels of the original photos, top-left pixel centre
    (0, 0); counts0 and counts1 (B,) int64, the valid keypoints of each image; matches0 (B, K0) int64, a row of
    keypoints1 or -1; scores (B, K0).
    """
    tail = to_onnx(_tail_graph(extractor, state, opset))
    head = to_onnx(replace(extractor, opset=opset))
    extractors = [
        node
        for side in "01"
        for node in _renamed_nodes(
            head, f"{side}/", {"image": f"image{side}", "counts": f"counts{side}"}, weights="extractor/"
        )
    ]
    names = {f"{name}{side}": f"{side}/{name}" for name in ("keypoints", "descriptors") for side in "01"}
    names |= dict(zip(TAIL_OUTPUTS, ("keypoints0", "keypoints1", "matches0", "scores"), strict=True))
    inputs = {graph_input.name: graph_input for graph_input in (*head.graph.input, *tail.graph.input)}
    graph = onnx.helper.make_graph(
        [*extractors, *_renamed_nodes(tail, "matcher/", names)],
        "end2end",
        [inputs[name] for name in (*INPUTS, *OPTIONAL) if name in inputs],
        _outputs(),
        [*_renamed_weights(head, "extractor/"), *_renamed_weights(tail, "matcher/")],
    )
    return onnx.helper.make_model(graph, opset_imports=tail.opset_import, ir_version=tail.ir_version)


def _tail_graph(extractor: Graph, state: reference.State, opset: int) -> Graph:
    """Return the arguments of the tail's tracing, with the axes of the images that the extractor's image has."""
    image, axes = extractor.inputs["image"], extractor.dynamic.get("image", ())
    batch, batch_axis = image.shape[0], [axis for axis in axes if axis == 0]
    # Each input is a tensor of its own: the exporter takes two uses of one tensor for one input.
    example = {
        "image": [image, image[:, :, 4:, 9:] if 2 in axes else image.clone()],
        "keypoints": [torch.rand(batch, points, 2) for points in (30, 40)],
        "descriptors": [torch.rand(batch, points, descriptor_dim(state)) for points in (30, 40)],
        "counts": [torch.full((batch,), count) for count in (20, 25)],
        "scales": [torch.rand(batch, 2) for _ in range(2)],
    }
    inputs = {f"{name}{side}": values[side] for name, values in example.items() for side in (0, 1)}
    dynamic: dict[str, Sequence[int]] = {name: axes if name.startswith("image") else batch_axis for name in inputs}
    dynamic |= {name: [*batch_axis, 1] for name in inputs if name.startswith(("keypoints", "descriptors"))}
    inputs["threshold"] = torch.tensor(0.1)
    return Graph(Tail(state, opset), inputs, dynamic, TAIL_OUTPUTS, opset=opset)


def _outputs() -> list[onnx.ValueInfoProto]:
    types = {name: onnx.TensorProto.INT64 if name in INT_OUTPUTS else onnx.TensorProto.FLOAT for name in OUTPUTS}
    return [onnx.helper.make_tensor_value_info(name, types[name], OUTPUT_SHAPES[name]) for name in OUTPUTS]


def _renamed_nodes(
    model: onnx.ModelProto, prefix: str, names: Mapping[str, str], weights: str | None = None
) -> list[onnx.NodeProto]:
    """Return a copy of a model's nodes with renamed values.

    `names` maps the inputs and outputs that are renamed; other inputs keep their names. Weights get the prefix
    `weights`, all other values and the nodes get `prefix`.
    """
    renamed = {graph_input.name: graph_input.name for graph_input in model.graph.input} | {"": ""}
    renamed |= {weight.name: (weights or prefix) + weight.name for weight in model.graph.initializer}
    renamed |= dict(names)
    nodes = []
    for node in model.graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name = prefix + node.name
        copy.input[:] = [renamed.get(value, prefix + value) for value in node.input]
        copy.output[:] = [renamed.get(value, prefix + value) for value in node.output]
        nodes.append(copy)
    return nodes


def _renamed_weights(model: onnx.ModelProto, prefix: str) -> list[onnx.TensorProto]:
    """Return a copy of a model's weights with prefixed names."""
    weights = []
    for weight in model.graph.initializer:
        copy = onnx.TensorProto()
        copy.CopyFrom(weight)
        copy.name = prefix + weight.name
        weights.append(copy)
    return weights
