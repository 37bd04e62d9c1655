"""LightGlue in plain NumPy (float64), with random weights in the .npz format of export/quantize.py."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Weights = dict[str, Array]
EMBED_DIM, HEADS = 256, 4
HEAD_DIM = EMBED_DIM // HEADS


def random_layer(rng: np.random.Generator, *, has_self_attention: bool, has_decisions: bool) -> Weights:
    """Weights of a layer by the names of the .npz file. Attention is neither uniform nor on one key alone."""
    weights: Weights = {}
    for block, names in [("self_block", ["query", "key", "value"]), ("cross_block", ["query_key", "value"])]:
        if block == "self_block" and not has_self_attention:
            continue
        for name in names:
            weights |= _random_dense(rng, f"{block}.{name}", EMBED_DIM, EMBED_DIM, gain=1.3)
        weights |= _random_dense(rng, f"{block}.ffn.inside", 2 * EMBED_DIM, 2 * EMBED_DIM)
        weights[f"{block}.ffn.norm.weight"] = _normal(rng, 2 * EMBED_DIM, 0.25) + np.float32(1)
        weights[f"{block}.ffn.norm.bias"] = _normal(rng, 2 * EMBED_DIM, 0.15)
        weights[f"{block}.ffn.outside.weight"] = _normal(rng, (2 * EMBED_DIM, EMBED_DIM), 1 / math.sqrt(2 * EMBED_DIM))
        weights[f"{block}.ffn.outside.bias"] = _normal(rng, EMBED_DIM, 0.1)
    if has_decisions:
        weights["deciders.both.weight"] = _normal(rng, (EMBED_DIM, 2), 0.1)
        weights["deciders.both.bias"] = _normal(rng, 2, 0.3)
    return weights


def random_stem(rng: np.random.Generator, positions: int, descriptor_dim: int) -> Weights:
    """Weights of a stem by the names of the .npz file, for `positions` numbers of a keypoint."""
    layer = random_layer(rng, has_self_attention=True, has_decisions=False)
    weights = {name: values for name, values in layer.items() if name.startswith("self_block")}
    weights["frequencies"] = _normal(rng, (positions, HEAD_DIM // 2), 2)
    if descriptor_dim != EMBED_DIM:
        weights["project.weight"] = _normal(rng, (descriptor_dim, EMBED_DIM), 1 / math.sqrt(descriptor_dim))
        weights["project.bias"] = _normal(rng, EMBED_DIM, 0.1)
    return weights


def random_head(rng: np.random.Generator) -> Weights:
    """Weights of a head by the names of the .npz file."""
    return {
        "project.weight": _normal(rng, (EMBED_DIM, EMBED_DIM), 0.03),
        "project.bias": _normal(rng, EMBED_DIM, 0.07),
        "matchability.weight": _normal(rng, (EMBED_DIM, 1), 0.1),
        "matchability.bias": np.ones(1, np.float32),
    }


def write(weights: Weights, path: Path) -> Path:
    """Write a stage as export.quantize does."""
    np.savez(path, **weights, metadata=np.array(json.dumps({"lgbatch.kind": "test"})))
    return path


def layer(weights: Weights, feed: Mapping[str, Array]) -> dict[str, Array]:
    """Run a layer on one pair without padding: x (N, W), cosines and sines (N, D / 2) of each side, by input name.

    Returns y0 and y1 (N, W) and, if the layer predicts them, confidence and matchability (N,) of each side.
    """
    x = [feed[f"x{side}"].astype(np.float64) for side in (0, 1)]
    if "self_block.query.bias" in weights:
        for side in (0, 1):
            rotation = feed[f"cosines{side}"], feed[f"sines{side}"]
            query, key = (
                _rotate(_dense(weights, f"self_block.{name}", x[side]), *rotation) for name in ("query", "key")
            )
            context = _attention(query, key, _dense(weights, "self_block.value", x[side]))
            x[side] = _feed_forward(weights, "self_block.ffn", x[side], context)
    query_key, value = ([_dense(weights, f"cross_block.{name}", each) for each in x] for name in ("query_key", "value"))
    contexts = [_attention(query_key[side], query_key[1 - side], value[1 - side]) for side in (0, 1)]
    y = [_feed_forward(weights, "cross_block.ffn", x[side], contexts[side]) for side in (0, 1)]
    outputs = {f"y{side}": y[side] for side in (0, 1)}
    if "deciders.both.weight" in weights:
        for side in (0, 1):
            decisions = _sigmoid(y[side] @ weights["deciders.both.weight"] + weights["deciders.both.bias"])
            outputs |= {f"confidence{side}": decisions[:, 0], f"matchability{side}": decisions[:, 1]}
    return outputs


def stem(weights: Weights, keypoints: Array, descriptors: Array, size: Array) -> tuple[Array, Array, Array]:
    """Encode one image: x (N, W), and cosines and sines (N, D / 2)."""
    half = size.astype(np.float64) / 2
    position = np.concatenate([(keypoints[:, :2] - half) / half.max(), keypoints[:, 2:]], 1)
    phases, x = position @ weights["frequencies"].astype(np.float64), descriptors.astype(np.float64)
    if "project.weight" in weights:
        x = _dense(weights, "project", x)
    cosines, sines = np.cos(phases), np.sin(phases)
    query, key = (_rotate(_dense(weights, f"self_block.{name}", x), cosines, sines) for name in ("query", "key"))
    context = _attention(query, key, _dense(weights, "self_block.value", x))
    return _feed_forward(weights, "self_block.ffn", x, context), cosines, sines


def head(weights: Weights, x0: Array, x1: Array, threshold: float) -> tuple[Array, Array]:
    """Match x0 (M, W) and x1 (N, W): matches0 (M,), -1 if unmatched, and scores (M,), 0 if unmatched.

    The assignment is the double softmax of the similarities times both matchabilities. A match is the mutual maximum
    of its row and column, with a score above the threshold.
    """
    x0, x1 = x0.astype(np.float64), x1.astype(np.float64)
    projected = [x @ weights["project.weight"] + weights["project.bias"] for x in (x0, x1)]
    matchability = [_sigmoid(x @ weights["matchability.weight"] + weights["matchability.bias"]) for x in (x0, x1)]
    similarity = projected[0] @ projected[1].T
    assignment = _softmax(similarity, 1) * _softmax(similarity, 0) * matchability[0] * matchability[1].T
    best = assignment.argmax(1)
    rows = np.arange(len(x0))
    scores = assignment[rows, best]
    matched = (assignment.argmax(0)[best] == rows) & (scores > threshold)
    return np.where(matched, best, -1), np.where(matched, scores, 0.0)


def _random_dense(rng: np.random.Generator, name: str, in_dim: int, out_dim: int, gain: float = 1.0) -> Weights:
    """A quantized dense layer that multiplies the standard deviation of its input by about `gain`."""
    weight = _normal(rng, (in_dim, out_dim), gain / math.sqrt(in_dim))
    scales = np.abs(weight).max(0) / np.float32(127)
    return {
        f"{name}.weight.int8": np.round(weight / scales).astype(np.int8),
        f"{name}.weight.scales": scales,
        f"{name}.bias": _normal(rng, out_dim, 0.1),
    }


def _normal(rng: np.random.Generator, shape: int | tuple[int, ...], std: float) -> Array:
    return rng.normal(0, std, shape).astype(np.float32)


def _dense(weights: Weights, name: str, x: Array) -> Array:
    weight = weights.get(f"{name}.weight")
    if weight is None:
        weight = weights[f"{name}.weight.int8"] * weights[f"{name}.weight.scales"].astype(np.float64)
    return np.asarray(x @ weight + weights[f"{name}.bias"])


def _feed_forward(weights: Weights, name: str, x: Array, context: Array) -> Array:
    hidden = _dense(weights, f"{name}.inside", np.concatenate([x, context], 1))
    hidden = (hidden - hidden.mean(1, keepdims=True)) / np.sqrt(hidden.var(1, keepdims=True) + 1e-5)
    hidden = hidden * weights[f"{name}.norm.weight"] + weights[f"{name}.norm.bias"]
    return x + _dense(weights, f"{name}.outside", _gelu(hidden))


def _attention(query: Array, key: Array, value: Array) -> Array:
    """Multi-head softmax attention, (M, W), (N, W), (N, W) to (M, W)."""
    query, key, value = (x.reshape(len(x), HEADS, HEAD_DIM).swapaxes(0, 1) for x in (query, key, value))
    weights = _softmax(query @ key.swapaxes(1, 2) / math.sqrt(HEAD_DIM), 2)
    return np.asarray((weights @ value).swapaxes(0, 1).reshape(-1, EMBED_DIM))


def _rotate(x: Array, cosines: Array, sines: Array) -> Array:
    """Rotary embedding of x (N, W): the first half of each head pairs with the second."""
    first, second = np.split(x.reshape(len(x), HEADS, HEAD_DIM), 2, axis=2)
    cosines, sines = cosines[:, None], sines[:, None]
    rotated = np.concatenate([first * cosines - second * sines, first * sines + second * cosines], 2)
    return rotated.reshape(len(x), EMBED_DIM)


def _gelu(x: Array) -> Array:
    return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2


def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def _softmax(x: Array, axis: int) -> Array:
    exponentials = np.exp(x - x.max(axis, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis, keepdims=True))
