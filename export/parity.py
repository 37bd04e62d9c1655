"""Is the exported model the network? Runs both on made-up photos and reports how far apart they are."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from lgbatch.errors import ModelError
from lgbatch.export import reference
from lgbatch.export.lightglue.blocks import shape_of
from lgbatch.export.lightglue.graphs import modules as matcher_modules
from lgbatch.export.quantize import restored
from lgbatch.types import FloatArray

SIZES = ((256, 320), (250, 333), (64, 48))
"""(height, width) of the photos: a multiple of the network's stride, one that is not, and a tiny one."""
SAME = 1e-2
"""Keypoints that are closer than this, in pixels, are the same."""
THRESHOLD = np.array(0.1, np.float32)
BEFORE_ATTENTION = 22
"""An opset whose operators PyTorch can compute."""
Feed = Mapping[str, NDArray[Any]]
Figures = dict[str, float]
Extract = Callable[[torch.Tensor, int], reference.Features]
"""A reference extractor: a photo (3, H, W) and the most keypoints in, features out, best first."""


def extractor(model: Path, expect: Extract) -> Figures:
    """Compare an exported extractor with its reference; raises ModelError when they differ by more than rounding."""
    session = _open(model)
    same = total = 0
    score, cosine = 0.0, 0.0
    for seed, (height, width) in enumerate(SIZES):
        photos = np.stack([_photo(height, width, seed), _photo(height, width, seed + 100)])
        outputs = session.run(None, {"image": photos, "max_keypoints": np.array(512)})
        for photo, keypoints, scores, descriptors, count in zip(photos, *outputs, strict=True):
            expected = expect(torch.from_numpy(photo), 512)
            theirs, mine = same_keypoints(expected[0].numpy(), keypoints[:count])
            same += len(mine)
            total += max(len(expected[0]), int(count))
            score = max(score, _largest(expected[1].numpy()[theirs] - scores[mine]))
            cosine = max(cosine, _largest(1 - (expected[2].numpy()[theirs] * descriptors[mine]).sum(1)))
    figures = {
        "keypoints": total,
        "same_keypoints": same / total,
        "score_error": score,
        "cosine_error": cosine,
    }
    return _judge(model, figures, figures["same_keypoints"] >= 0.995 and cosine < 1e-3)


def same_keypoints(first: FloatArray, second: FloatArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of first (M, 2) and second (N, 2) at the same place, up to SAME pixels, each once."""
    if not (len(first) and len(second)):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    nearest = np.stack([np.linalg.norm(second - keypoint, axis=1).argmin() for keypoint in first])
    rows = np.flatnonzero(np.linalg.norm(first - second[nearest], axis=1) < SAME)
    once = np.unique(nearest[rows], return_index=True)[1]
    return rows[once], nearest[rows][once]


def matcher(model: Path, state: reference.State) -> Figures:
    """Compare the single-graph matcher with the reference on a padded batch of unequal pairs; raises ModelError."""
    keypoints, descriptors, size, counts = _pairs(state)
    feed = {f"keypoints{i}": keypoints[i] for i in (0, 1)} | {f"descriptors{i}": descriptors[i] for i in (0, 1)}
    feed |= {"size0": size, "size1": size, "lengths0": counts[0], "lengths1": counts[1], "threshold": THRESHOLD}
    matches, scores = _open(model).run(None, feed)
    same, found, error = 0, 0, 0.0
    last = shape_of(state).layers - 1
    for b, (m, n) in enumerate(counts.T):
        x, y = _reference(state, keypoints[:, b], descriptors[:, b], size[b], m, n)[-1]
        expected, probability = reference.mutual_matches(reference.assignment(state, x, y, last), float(THRESHOLD))
        same += int((expected.numpy() == matches[b, :m]).sum())
        same -= int((matches[b, m:] != -1).sum())  # padding never matches
        found += int((expected >= 0).sum())
        error = max(error, _largest(probability.numpy() - scores[b, :m]))
    points = int(counts[0].sum())
    figures = {"points": points, "matches": found, "same_matches": same / points, "score_error": error}
    return _judge(model, figures, found > 50 and figures["same_matches"] >= 0.995 and error < 1e-2)


def stages(folder: Path, state: reference.State, *, tolerance: float) -> Figures:
    """Compare every stage with the reference, each fed with what the reference made before it; raises ModelError."""
    keypoints, descriptors, size, counts = _pairs(state)
    largest = {"layer_error": 0.0, "decision_error": 0.0, "score_error": 0.0}
    depth = shape_of(state).layers
    stages = _stages(folder, state)
    for b, (m, n) in enumerate(counts.T):
        expected = _reference(state, keypoints[:, b], descriptors[:, b], size[b], m, n)
        lengths = {"lengths0": np.array([m]), "lengths1": np.array([n])}
        feed: dict[str, NDArray[Any]] = {}
        for side, count in enumerate((m, n)):
            inputs = {
                "keypoints": keypoints[side, b : b + 1, :count],
                "descriptors": descriptors[side, b : b + 1, :count],
            }
            made = stages["stem"](inputs | {"size": size[b : b + 1], "lengths": np.array([count])})
            feed |= {f"{name}{side}": value for name, value in zip(("x", "cosines", "sines"), made, strict=True)}
        for i, (x, y) in enumerate(expected):
            outputs = stages[f"layer{i}"](
                {name: value for name, value in (feed | lengths).items() if i or name[0] in "xl"}
            )
            decisions = (
                [f(state, z, i) for z in (x, y) for f in (reference.confidence, reference.matchability)]
                if i < depth - 1
                else []
            )
            errors = [_largest(o[0] - e.numpy()) for o, e in zip(outputs, (x, y, *decisions), strict=True)]
            feed |= {"x0": x[None].numpy(), "x1": y[None].numpy()}
            pair = {key: feed[key] for key in ("x0", "x1")} | lengths | {"threshold": THRESHOLD}
            scores = stages[f"head{i}"](pair)[1]
            probability = reference.mutual_matches(reference.assignment(state, x, y, i), float(THRESHOLD))[1]
            largest["layer_error"] = max(largest["layer_error"], *errors[:2])
            largest["decision_error"] = max(largest["decision_error"], *errors[2:], 0.0)
            largest["score_error"] = max(largest["score_error"], _largest(probability.numpy() - scores[0]))
    return _judge(folder, {"stages": 1 + 2 * depth, **largest}, max(largest.values()) < tolerance)


def _stages(folder: Path, state: reference.State) -> dict[str, Callable[[Feed], Sequence[NDArray[Any]]]]:
    """The stages as their files tell them. What is for kernels is computed by PyTorch: these run on few machines."""
    stages: dict[str, Callable[[Feed], Sequence[NDArray[Any]]]] = {}
    for stage, _, module in matcher_modules(state, BEFORE_ATTENTION):
        if (path := folder / f"{stage}.onnx").exists():
            stages[stage] = functools.partial(_open(path).run, None)
        else:
            module.load_state_dict(restored(path.with_suffix(".npz")))
            stages[stage] = functools.partial(_computed, module)
    return stages


def _computed(module: torch.nn.Module, feed: Feed) -> Sequence[NDArray[Any]]:
    with torch.no_grad():
        return [made.numpy() for made in module(**{name: torch.from_numpy(values) for name, values in feed.items()})]


def _pairs(state: reference.State) -> tuple[FloatArray, FloatArray, FloatArray, NDArray[np.int64]]:
    """Three made-up pairs: keypoints (2, 3, 200, 2 or 4), descriptors (2, 3, 200, D), size (3, 2), counts (2, 3)."""
    random = np.random.default_rng(0)
    keypoints = random.uniform(0, 640, (2, 3, 200, 2)).astype(np.float32)
    dim = state["input_proj.weight"].shape[1] if "input_proj.weight" in state else shape_of(state).width
    descriptors = random.normal(size=(2, 3, 200, dim)).astype(np.float32)
    descriptors[1] = descriptors[0] + 0.5 * descriptors[1]  # the same points, seen a little differently
    keypoints[1] = keypoints[0] + random.normal(scale=3, size=keypoints[0].shape)
    descriptors /= np.linalg.norm(descriptors, axis=-1, keepdims=True)
    if state["posenc.Wr.weight"].shape[1] == 4:
        more = np.stack([random.uniform(1, 30, (3, 200)), random.uniform(0, 6, (3, 200))], -1).astype(np.float32)
        keypoints = np.concatenate([keypoints, np.stack([more, 1.1 * more])], -1, dtype=np.float32)
    size = np.full((3, 2), [640, 480], np.float32)
    return keypoints, descriptors, size, np.array([[200, 150, 1], [180, 200, 40]])


def _reference(
    state: reference.State, keypoints: FloatArray, descriptors: FloatArray, size: FloatArray, m: int, n: int
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    first, second = (
        (torch.from_numpy(keypoints[side, :count]), torch.from_numpy(descriptors[side, :count]))
        for side, count in enumerate((m, n))
    )
    sizes = torch.from_numpy(size), torch.from_numpy(size)
    return reference.lightglue(state, (first[0], second[0]), (first[1], second[1]), sizes)


def _judge(model: Path, figures: Figures, good: bool) -> Figures:
    if not good:
        raise ModelError(f"{model.name} does not agree with the PyTorch reference ({figures}); it was not kept")
    return {key: float(f"{value:.6g}") for key, value in figures.items()}


def _open(model: Path) -> ort.InferenceSession:
    return ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])


def _largest(values: NDArray[np.floating]) -> float:
    return float(np.abs(values).max(initial=0.0))


def _photo(height: int, width: int, seed: int) -> FloatArray:
    """A made-up photo (3, H, W) in 0..1: blurred noise at three scales, and some boxes with corners."""
    random = np.random.default_rng(seed)
    image = np.zeros((height, width, 3))
    for scale, weight in ((2, 0.3), (8, 0.4), (32, 0.3)):
        image += weight * cv2.resize(random.random((height // scale + 2, width // scale + 2, 3)), (width, height))
    for x, y, w, h in random.integers(2, 40, (30, 4)):
        x, y = x * width // 40, y * height // 40
        image[y : y + h, x : x + w] = random.random(3)
    return np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32)
