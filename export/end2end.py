"""Photos in, matches out, in one graph: an extractor for each side, and the single-graph LightGlue behind them.

The exporter cannot trace the whole, as the number of keypoints of either photo is known only when it runs. So the
parts are traced alone, and joined; both extractors share one copy of the weights.
"""

from collections.abc import Mapping
from dataclasses import replace

import onnx
import torch
from torch import Tensor, nn

from lgbatch.export import reference
from lgbatch.export.lightglue.blocks import operators, shape_of
from lgbatch.export.lightglue.stages import Matcher
from lgbatch.export.onnx_graph import Graph, to_onnx
from lgbatch.runtime.registry import INTERFACE

INPUTS, OUTPUTS = INTERFACE["end2end"]
OPTIONAL = ("detection_threshold",)


class Tail(nn.Module):
    """What comes after extraction."""

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
        """Keypoints (B, K, 2) of both in pixels of the photos before they were scaled; matches0 and scores (B, K0).

        Of the images only the sizes are looked at. scales (B, 2) are the new size by the old one, along x and y.
        """
        sizes = [_size(image) for image in (image0, image1)]
        matches0, scores = self.matcher(
            keypoints0, keypoints1, descriptors0, descriptors1, *sizes, counts0.clamp(min=1), counts1.clamp(min=1),
            threshold,
        )  # fmt: skip
        both = ((counts0 > 0) & (counts1 > 0))[:, None]
        places = [(k + 0.5) / s[:, None] - 0.5 for k, s in ((keypoints0, scales0), (keypoints1, scales1))]
        return places[0], places[1], torch.where(both, matches0, -1), torch.where(both, scores, 0.0)


def _size(image: Tensor) -> Tensor:
    """(B, 2), width and height."""
    ones = torch.ones_like(image[:, :2, 0, 0])
    return ones * torch.tensor([image.shape[3], image.shape[2]], dtype=torch.float32)


def end2end(extractor: Graph, state: reference.State, opset: int) -> onnx.ModelProto:
    """Join an extractor, as it is to be traced, and LightGlue's weights.

    INPUTS: image0 (B, 3, H, W) and image1 (B, 3, H', W') float32, RGB in 0..1; scales0 and scales1 (B, 2); most
    keypoints () int64; least probability of a match () float32. OPTIONAL: least score of a keypoint () float32.
    OUTPUTS: keypoints (B, K, 2), of which an image has `counts` (B,); matches0 (B, K0) int64, row of keypoints1 or -1;
    scores (B, K0).
    """
    image, axes = extractor.inputs["image"], extractor.dynamic.get("image", ())
    batch, free = image.shape[0], [axis for axis in axes if axis == 0]
    dim = state["input_proj.weight"].shape[1] if "input_proj.weight" in state else shape_of(state).width
    # Each a tensor of its own: the exporter takes the same one for the same input.
    example = {
        "image": [image, image[:, :, 4:, 9:] if 2 in axes else image.clone()],
        "keypoints": [torch.rand(batch, points, 2) for points in (30, 40)],
        "descriptors": [torch.rand(batch, points, dim) for points in (30, 40)],
        "counts": [torch.full((batch,), count) for count in (20, 25)],
        "scales": [torch.rand(batch, 2) for _ in range(2)],
    }
    inputs = {f"{name}{side}": values[side] for name, values in example.items() for side in (0, 1)}
    dynamic = {name: axes if name.startswith("image") else free for name in inputs}
    dynamic |= {name: [*free, 1] for name in inputs if name.startswith(("keypoints", "descriptors"))}
    inputs["threshold"] = torch.tensor(0.1)
    made = ["keypoints", "other keypoints", "matches0", "scores"]
    tail = to_onnx(Graph(Tail(state, opset), inputs, dynamic, made, opset=opset))
    head = to_onnx(replace(extractor, opset=opset))
    heads = [
        _placed(head, f"{side}/", {"image": f"image{side}", "counts": f"counts{side}"}, weights="extractor/")
        for side in "01"
    ]
    wires = {f"{name}{side}": f"{side}/{name}" for name in ("keypoints", "descriptors") for side in "01"}
    wires |= dict(zip(made, ("keypoints0", "keypoints1", "matches0", "scores"), strict=True))
    slots = {slot.name: slot for slot in (*head.graph.input, *tail.graph.input)}
    real, index = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    sizes: dict[str, list[str | int | None]] = {
        "keypoints0": ["B", "K0", 2],
        "keypoints1": ["B", "K1", 2],
        "matches0": ["B", "K0"],
        "scores": ["B", "K0"],
    }
    graph = onnx.helper.make_graph(
        [*heads[0], *heads[1], *_placed(tail, "matcher/", wires)],
        "end2end",
        [slots[name] for name in (*INPUTS, *OPTIONAL) if name in slots],
        [
            onnx.helper.make_tensor_value_info(
                name, index if name[:5] in ("count", "match") else real, sizes.get(name, ["B"])
            )
            for name in OUTPUTS
        ],
        [*_weights(head, "extractor/"), *_weights(tail, "matcher/")],
    )
    return onnx.helper.make_model(graph, opset_imports=tail.opset_import, ir_version=tail.ir_version)


def _placed(
    model: onnx.ModelProto, prefix: str, wires: Mapping[str, str], weights: str | None = None
) -> list[onnx.NodeProto]:
    """The nodes of a model, with other names for its values: of inputs and outputs by `wires`, else by prefix."""
    names = {slot.name: slot.name for slot in model.graph.input} | {"": ""}
    names |= {slot.name: (weights or prefix) + slot.name for slot in model.graph.initializer}
    names |= dict(wires)
    nodes = []
    for node in model.graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name = prefix + node.name
        copy.input[:] = [names.get(value, prefix + value) for value in node.input]
        copy.output[:] = [names.get(value, prefix + value) for value in node.output]
        nodes.append(copy)
    return nodes


def _weights(model: onnx.ModelProto, prefix: str) -> list[onnx.TensorProto]:
    slots = []
    for slot in model.graph.initializer:
        copy = onnx.TensorProto()
        copy.CopyFrom(slot)
        copy.name = prefix + slot.name
        slots.append(copy)
    return slots
