"""Parity: compare exported models with the PyTorch references on synthetic photos and keypoints."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from lgbatch.errors import ModelError
from lgbatch.export import reference
from lgbatch.export.lightglue.blocks import descriptor_dim, shape_of
from lgbatch.export.lightglue.graphs import stage_modules
from lgbatch.export.quantize import load_dequantized
from lgbatch.types import FloatArray, LongArray

SIZES = ((256, 320), (250, 333), (64, 48))
"""(height, width) of the photos: a multiple of the network's stride, one that is not, and a tiny one."""
MAX_KEYPOINTS = 512
SAME = 1e-2
"""Two keypoints are the same if they are closer than this, in pixels."""
THRESHOLD = np.array(0.1, np.float32)
"""Minimum score of a match."""
EAGER_OPSET = 22
"""An opset whose operators PyTorch can run eagerly: it has no Attention and no RotaryEmbedding."""
Feed = Mapping[str, NDArray[Any]]
Figures = dict[str, float]
"""Differences from the reference, by name. They are written to the metadata of the models."""
Extract = Callable[[torch.Tensor, int], reference.Features]
"""A reference extractor: a photo (3, H, W) and the maximum number of keypoints to features, best first."""
Run = Callable[[FloatArray], Sequence[NDArray[Any]]]
"""An exported extractor: photos (B, 3, H, W) to the outputs of registry.INTERFACE."""
Stage = Callable[[Feed], Sequence[NDArray[Any]]]
LayerOutputs = list[tuple[torch.Tensor, torch.Tensor]]
"""Embeddings (M, W) and (N, W) after each layer."""


class Pairs(NamedTuple):
    """A padded batch of three synthetic pairs."""

    keypoints: FloatArray
    """(2, 3, 200, 2), or (2, 3, 200, 4) with scales and orientations; the first axis is the side."""
    descriptors: FloatArray
    """(2, 3, 200, D)."""
    size: FloatArray
    """(3, 2), width and height of both images of a pair."""
    counts: LongArray
    """(2, 3), valid rows per side and pair."""


def onnx_extractor(model: Path) -> Run:
    """Return an exported extractor, run by ONNX Runtime."""
    session = _open(model)
    return lambda images: session.run(None, {"image": images, "max_keypoints": np.array(MAX_KEYPOINTS)})


def stored_extractor(model: Path, module: torch.nn.Module) -> Run:
    """Return an extractor for lgbatch's kernels with the stored parameters. PyTorch runs it: few machines have them."""
    module.load_state_dict(load_dequantized(model))
    return lambda images: _run_eagerly(module, {"image": images, "max_keypoints": np.array(MAX_KEYPOINTS)})


def extractor(model: Path, run: Run, reference_extractor: Extract) -> Figures:
    """Compare an exported extractor with its reference. Raises ModelError if they differ by more than rounding."""
    same = total = 0
    score_error, cosine_error = 0.0, 0.0
    for seed, (height, width) in enumerate(SIZES):
        photos = np.stack([synthetic_photo(height, width, seed), synthetic_photo(height, width, seed + 100)])
        outputs = run(photos)
        for photo, keypoints, scores, descriptors, count in zip(photos, *outputs, strict=True):
            expected = reference_extractor(torch.from_numpy(photo), MAX_KEYPOINTS)
            expected_rows, rows = same_keypoints(expected[0].numpy(), keypoints[:count])
            same += len(rows)
            total += max(len(expected[0]), int(count))
            score_error = max(score_error, _max_abs(expected[1].numpy()[expected_rows] - scores[rows]))
            cosines = (expected[2].numpy()[expected_rows] * descriptors[rows]).sum(1)
            cosine_error = max(cosine_error, _max_abs(1 - cosines))
    figures = {
        "keypoints": total,
        "same_keypoints": same / total,
        "score_error": score_error,
        "cosine_error": cosine_error,
    }
    return _checked(model, figures, figures["same_keypoints"] >= 0.995 and cosine_error < 1e-3)


def same_keypoints(first: FloatArray, second: FloatArray) -> tuple[LongArray, LongArray]:
    """Return the rows of first (M, 2) and second (N, 2) that hold the same keypoints, up to SAME pixels, each once."""
    if not (len(first) and len(second)):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    nearest = np.stack([np.linalg.norm(second - keypoint, axis=1).argmin() for keypoint in first])
    rows = np.flatnonzero(np.linalg.norm(first - second[nearest], axis=1) < SAME)
    unique = np.unique(nearest[rows], return_index=True)[1]
    return rows[unique], nearest[rows][unique]


def matcher(model: Path, state: reference.State) -> Figures:
    """Compare the single-graph matcher with the reference on a padded batch of unequal pairs.

    Raises ModelError if they differ by more than rounding.
    """
    pairs = _synthetic_pairs(state)
    feed = {f"keypoints{i}": pairs.keypoints[i] for i in (0, 1)} | {f"lengths{i}": pairs.counts[i] for i in (0, 1)}
    feed |= {f"descriptors{i}": pairs.descriptors[i] for i in (0, 1)} | {f"size{i}": pairs.size for i in (0, 1)}
    matches, scores = _open(model).run(None, feed | {"threshold": THRESHOLD})
    same, matched, error = 0, 0, 0.0
    last = shape_of(state).layers - 1
    for b, count in enumerate(pairs.counts[0]):
        x, y = _reference_layers(state, pairs, b)[-1]
        expected, expected_scores = _reference_matches(state, x, y, last)
        same += int((expected.numpy() == matches[b, :count]).sum())
        same -= int((matches[b, count:] != -1).sum())  # padding must not match
        matched += int((expected >= 0).sum())
        error = max(error, _max_abs(expected_scores.numpy() - scores[b, :count]))
    points = int(pairs.counts[0].sum())
    figures = {"points": points, "matches": matched, "same_matches": same / points, "score_error": error}
    return _checked(model, figures, matched > 50 and figures["same_matches"] >= 0.995 and error < 1e-2)


def stages(folder: Path, state: reference.State, *, tolerance: float) -> Figures:
    """Compare every stage with the reference, each on the reference's output of the stage before it.

    Raises ModelError if an error reaches `tolerance`.
    """
    pairs = _synthetic_pairs(state)
    opened = _open_stages(folder, state)
    errors = {"layer_error": 0.0, "decision_error": 0.0, "score_error": 0.0}
    for b in range(pairs.counts.shape[1]):
        for name, error in _stage_errors(opened, state, pairs, b):
            errors[name] = max(errors[name], error)
    return _checked(folder, {"stages": 1 + 2 * shape_of(state).layers, **errors}, max(errors.values()) < tolerance)


def _stage_errors(
    opened: Mapping[str, Stage], state: reference.State, pairs: Pairs, b: int
) -> Iterator[tuple[str, float]]:
    """Yield the name and size of every error on pair b."""
    lengths = {f"lengths{side}": pairs.counts[side, b : b + 1] for side in (0, 1)}
    feed = _stem_outputs(opened["stem"], pairs, b) | lengths
    layers = _reference_layers(state, pairs, b)
    for i, (x, y) in enumerate(layers):
        expected = [x, y]
        if i < len(layers) - 1:
            expected += [f(state, z, i) for z in (x, y) for f in (reference.confidence, reference.matchability)]
        # The first layer takes no cosines and sines.
        outputs = opened[f"layer{i}"]({name: values for name, values in feed.items() if i or name[0] in "xl"})
        errors = [_max_abs(o[0] - e.numpy()) for o, e in zip(outputs, expected, strict=True)]
        yield "layer_error", max(errors[:2])
        yield "decision_error", max(errors[2:], default=0.0)
        feed |= {"x0": x[None].numpy(), "x1": y[None].numpy()}
        pair = {name: feed[name] for name in ("x0", "x1", *lengths)} | {"threshold": THRESHOLD}
        scores = opened[f"head{i}"](pair)[1]
        yield "score_error", _max_abs(_reference_matches(state, x, y, i)[1].numpy() - scores[0])


def _stem_outputs(stem: Stage, pairs: Pairs, b: int) -> dict[str, NDArray[Any]]:
    """Return x, cosines and sines of both images of pair b."""
    outputs: dict[str, NDArray[Any]] = {}
    for side, count in enumerate(pairs.counts[:, b]):
        feed = {
            "keypoints": pairs.keypoints[side, b : b + 1, :count],
            "descriptors": pairs.descriptors[side, b : b + 1, :count],
            "size": pairs.size[b : b + 1],
            "lengths": np.array([count]),
        }
        names = [f"{name}{side}" for name in ("x", "cosines", "sines")]
        outputs |= dict(zip(names, stem(feed), strict=True))
    return outputs


def _open_stages(folder: Path, state: reference.State) -> dict[str, Stage]:
    """Open the stages of a model. PyTorch runs those for the 8-bit kernels, which few machines support."""
    opened: dict[str, Stage] = {}
    for stage, _, module in stage_modules(state, EAGER_OPSET):
        if (path := folder / f"{stage}.onnx").exists():
            opened[stage] = functools.partial(_run_in_its_types, _open(path))
        else:
            module.load_state_dict(load_dequantized(path.with_suffix(".npz")))
            opened[stage] = functools.partial(_run_eagerly, module)
    return opened


def _run_in_its_types(session: ort.InferenceSession, feed: Feed) -> Sequence[NDArray[Any]]:
    """Run a session whose points may be in half precision, with inputs and outputs in single precision."""
    half = {slot.name for slot in session.get_inputs() if slot.type == "tensor(float16)"}
    outputs = session.run(None, {name: v.astype(np.float16) if name in half else v for name, v in feed.items()})
    return [output.astype(np.float32) if output.dtype == np.float16 else output for output in outputs]


def _run_eagerly(module: torch.nn.Module, feed: Feed) -> Sequence[NDArray[Any]]:
    with torch.no_grad():
        outputs = module(**{name: torch.from_numpy(values) for name, values in feed.items()})
    return [output.numpy() for output in outputs]


def _synthetic_pairs(state: reference.State) -> Pairs:
    """Return three pairs for a LightGlue with these weights: noisy views of the same points, of unequal counts."""
    random = np.random.default_rng(0)
    keypoints = random.uniform(0, 640, (2, 3, 200, 2)).astype(np.float32)
    descriptors = random.normal(size=(2, 3, 200, descriptor_dim(state))).astype(np.float32)
    descriptors[1] = descriptors[0] + 0.5 * descriptors[1]
    keypoints[1] = keypoints[0] + random.normal(scale=3, size=keypoints[0].shape)
    descriptors /= np.linalg.norm(descriptors, axis=-1, keepdims=True)
    if state["posenc.Wr.weight"].shape[1] == 4:
        shapes = np.stack([random.uniform(1, 30, (3, 200)), random.uniform(0, 6, (3, 200))], -1).astype(np.float32)
        keypoints = np.concatenate([keypoints, np.stack([shapes, 1.1 * shapes])], -1, dtype=np.float32)
    size = np.full((3, 2), [640, 480], np.float32)
    return Pairs(keypoints, descriptors, size, np.array([[200, 150, 1], [180, 200, 40]]))


def _reference_layers(state: reference.State, pairs: Pairs, b: int) -> LayerOutputs:
    """Return the reference's embeddings of pair b after each layer."""
    first, second = (
        (torch.from_numpy(pairs.keypoints[side, b, :count]), torch.from_numpy(pairs.descriptors[side, b, :count]))
        for side, count in enumerate(pairs.counts[:, b])
    )
    size = torch.from_numpy(pairs.size[b])
    return reference.lightglue(state, (first[0], second[0]), (first[1], second[1]), (size, size))


def _reference_matches(
    state: reference.State, x: torch.Tensor, y: torch.Tensor, layer: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the reference's matches (M,), -1 for none, and scores (M,) after a layer."""
    return reference.mutual_matches(reference.assignment(state, x, y, layer), float(THRESHOLD))


def _checked(model: Path, figures: Figures, good: bool) -> Figures:
    """Return the figures rounded for the metadata. Raises ModelError if they are not good."""
    if not good:
        raise ModelError(f"{model.name} does not agree with the PyTorch reference ({figures}): it was discarded")
    return {key: float(f"{value:.6g}") for key, value in figures.items()}


def _open(model: Path) -> ort.InferenceSession:
    return ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])


def _max_abs(values: NDArray[np.floating]) -> float:
    return float(np.abs(values).max(initial=0.0))


def synthetic_photo(height: int, width: int, seed: int) -> FloatArray:
    """Return a photo (3, H, W) in 0..1: random noise at three scales, and boxes with corners."""
    random = np.random.default_rng(seed)
    image = np.zeros((height, width, 3))
    for scale, weight in ((2, 0.3), (8, 0.4), (32, 0.3)):
        image += weight * cv2.resize(random.random((height // scale + 2, width // scale + 2, 3)), (width, height))
    for x, y, w, h in random.integers(2, 40, (30, 4)):
        x, y = x * width // 40, y * height // 40
        image[y : y + h, x : x + w] = random.random(3)
    return np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32)
