"""The kernels against plain NumPy in float64, on random weights: no model file and no download.

The reference uses the dequantized weights. The errors come from 8-bit activations, queries and keys, and from bfloat16
exponentials and values. Each bound states the maximum measured over 20 seeds.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lgbatch.kernels import library, session
from lgbatch.kernels.lightglue import Head, Layer, Stem
from tests.kernels import numpy_lightglue as reference

pytestmark = pytest.mark.skipif(
    library.int8_unavailable_reason() is not None, reason=str(library.int8_unavailable_reason())
)

Array = NDArray[Any]
COUNTS = [(1, 1), (1, 300), (5, 64), (64, 65), (65, 5), (129, 300), (300, 129)]
"""Keypoints of each side: below, at and above the panels (64) and key blocks (128) of the kernels."""
LAYERS = {"first": (False, True), "middle": (True, True), "last": (True, False)}
"""Whether a layer has self-attention, and whether it predicts confidence and matchability."""
UPDATE_ERROR = 0.025
"""RMS error of y, relative to the RMS of the layer's update y - x. Measured: 0.0179."""
OVERFLOW_ERROR = 0.25
"""The same for inputs so large that attention is one-hot: rounding changes the key of some queries. Measured: 0.182."""
Y_ERROR = 0.13
"""Absolute error of any element of y, whose standard deviation is about 1.4. Measured: 0.100."""
DECISION_ERROR = 0.035
"""Absolute error of a confidence or matchability. Measured: 0.0259."""
STEM_ERROR = 0.01
"""RMS error of the stem's x, relative to its RMS. Measured: 0.0064."""
SCORE_ERROR = 0.04
"""Absolute error of a match score. Measured: 0.0248."""
EQUAL_MATCHES = 0.98
"""Fraction of matches that the head shares with the reference. Measured: 1 (10,223 of 10,223)."""
THRESHOLD = 0.1


@pytest.fixture(scope="module", params=dict.fromkeys([library.chosen_isa(), library.PORTABLE]))
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """The fastest instruction set, and plain C, with which test_instruction_sets.py compares all others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(library.ISA_VARIABLE, request.param)
        yield request.param


@pytest.fixture(scope="module", params=LAYERS)
def layer(
    isa: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[reference.Weights, Layer]:
    """A random layer: its weights and the opened stage."""
    has_self_attention, has_decisions = LAYERS[request.param]
    rng = np.random.default_rng([has_self_attention, has_decisions])
    weights = reference.random_layer(rng, has_self_attention=has_self_attention, has_decisions=has_decisions)
    return weights, Layer(reference.write(weights, tmp_path_factory.mktemp("layer") / "layer.npz"))


@pytest.fixture(scope="module")
def head(isa: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[reference.Weights, Head]:
    """A random head: its weights and the opened stage."""
    weights = reference.random_head(np.random.default_rng(0))
    return weights, Head(reference.write(weights, tmp_path_factory.mktemp("head") / "head.npz"))


def random_pair(counts: tuple[int, int]) -> dict[str, Array]:
    """Unpadded inputs of a layer for one pair: x (N, W), cosines and sines (N, D / 2) of each side."""
    rng, feed = np.random.default_rng(counts), {}
    for side, count in enumerate(counts):
        angles = rng.uniform(-6, 6, (count, reference.HEAD_DIM // 2))
        feed[f"x{side}"] = rng.normal(size=(count, reference.EMBED_DIM)).astype(np.float32)
        feed[f"cosines{side}"] = np.cos(angles).astype(np.float32)
        feed[f"sines{side}"] = np.sin(angles).astype(np.float32)
    return feed


def matching_pair(counts: tuple[int, int]) -> dict[str, Array]:
    """Unpadded inputs of a head: the second side is the first in another order, each keypoint with its own noise."""
    rng = np.random.default_rng(counts)
    x0 = rng.normal(size=(max(counts), reference.EMBED_DIM))
    x1 = x0 + rng.uniform(0, 2.5, (len(x0), 1)) * rng.normal(size=x0.shape)
    return {"x0": x0[: counts[0]].astype(np.float32), "x1": rng.permutation(x1[: counts[1]]).astype(np.float32)}


def batched(pairs: list[dict[str, Array]], length: int = 0) -> dict[str, Array]:
    """Pairs as one batch, padded with NaN to the longest or to `length`, with their lengths."""
    feed: dict[str, Array] = {}
    for side in (0, 1):
        counts = [len(pair[f"x{side}"]) for pair in pairs]
        feed[f"lengths{side}"] = np.array(counts)
        for name in (name for name in pairs[0] if name.endswith(str(side))):
            feed[name] = np.full((len(pairs), max(*counts, length), pairs[0][name].shape[1]), np.nan, np.float32)
            for item, (pair, count) in enumerate(zip(pairs, counts, strict=True)):
                feed[name][item, :count] = pair[name]
    return feed


def run_layer(stage: Layer, feed: Mapping[str, Array]) -> dict[str, Array]:
    outputs = stage.run({name: feed[name] for name in stage.inputs})
    return dict(zip(stage.outputs, outputs, strict=True))


def run_head(stage: Head, feed: Mapping[str, Array]) -> tuple[Array, Array]:
    matches0, scores = stage.run({**feed, "threshold": np.array(THRESHOLD, np.float32)})
    return matches0, scores


def rms(values: Array) -> float:
    return float(np.sqrt(np.square(values).mean()))


@pytest.mark.parametrize("counts", COUNTS)
def test_a_layer_equals_numpy_within_the_measured_error(
    layer: tuple[reference.Weights, Layer], counts: tuple[int, int]
) -> None:
    weights, stage = layer
    pair = random_pair(counts)
    expected, actual = reference.layer(weights, pair), run_layer(stage, batched([pair]))
    assert expected.keys() == actual.keys()
    for name, values in expected.items():
        error = actual[name][0] - values
        if name.startswith("y"):
            assert rms(error) < UPDATE_ERROR * rms(values - pair[f"x{name[-1]}"])
            assert np.abs(error).max() < Y_ERROR
        else:
            assert np.abs(error).max() < DECISION_ERROR


@pytest.mark.parametrize("positions", [2, 4])
@pytest.mark.parametrize("descriptor_dim", [64, 128, 256])
def test_a_stem_equals_numpy_within_the_measured_error(
    isa: str, tmp_path: Path, positions: int, descriptor_dim: int
) -> None:
    rng = np.random.default_rng([positions, descriptor_dim])
    weights = reference.random_stem(rng, positions, descriptor_dim)
    stage = Stem(reference.write(weights, tmp_path / "stem.npz"))
    counts, longest = [1, 2, 5, 64, 129], 131
    feed = {
        "keypoints": rng.uniform(0, 640, (len(counts), longest, positions)).astype(np.float32),
        "descriptors": rng.normal(size=(len(counts), longest, descriptor_dim)).astype(np.float32),
        "size": rng.integers(400, 900, (len(counts), 2)).astype(np.float32),
        "lengths": np.array(counts),
    }
    feed["keypoints"][..., 2:] /= 100
    for item, count in enumerate(counts):
        feed["descriptors"][item, count:] = np.nan
    outputs = stage.run(feed)
    assert [output.shape[2] for output in outputs] == stage.widths
    for item, count in enumerate(counts):
        image = feed["keypoints"][item, :count], feed["descriptors"][item, :count], feed["size"][item]
        expected = reference.stem(weights, *image)
        assert rms(outputs[0][item, :count] - expected[0]) < STEM_ERROR * rms(expected[0])
        for output, values in zip(outputs[1:], expected[1:], strict=True):
            np.testing.assert_allclose(output[item, :count], values, atol=1e-4)
        alone = stage.run({name: values[item : item + 1] for name, values in feed.items()})
        np.testing.assert_array_equal(alone[0][0, :count], outputs[0][item, :count])


def test_a_stem_refuses_descriptors_of_another_extractor(tmp_path: Path) -> None:
    weights = reference.random_stem(np.random.default_rng(0), 2, 128)
    stage = Stem(reference.write(weights, tmp_path / "stem.npz"))
    feed = {"keypoints": np.zeros((1, 1, 2)), "descriptors": np.zeros((1, 1, 64)), "size": np.ones((1, 2))}
    with pytest.raises(ValueError, match="descriptors of 64 numbers, expected 128"):
        stage.run(feed | {"lengths": np.array([1])})


def test_a_layer_keeps_its_accuracy_if_exponentials_overflow(layer: tuple[reference.Weights, Layer]) -> None:
    """The first 64 keys are small, so the first estimate of the row maximum is far too small for the others."""
    weights, stage = layer
    pair = random_pair((129, 300))
    for side in (0, 1):
        pair[f"x{side}"] *= np.float32(40)
        pair[f"x{side}"][:64] *= np.float32(1e-3)
    expected, actual = reference.layer(weights, pair), run_layer(stage, batched([pair]))
    for side in (0, 1):
        update = expected[f"y{side}"] - pair[f"x{side}"]
        assert rms(actual[f"y{side}"][0] - expected[f"y{side}"]) < OVERFLOW_ERROR * rms(update)


def test_padding_and_other_pairs_do_not_change_a_layer(layer: tuple[reference.Weights, Layer]) -> None:
    _, stage = layer
    pairs = [random_pair(counts) for counts in COUNTS]
    together = run_layer(stage, batched(pairs, length=307))
    for item, pair in enumerate(pairs):
        for name, alone in run_layer(stage, batched([pair])).items():
            assert np.isfinite(alone).all()
            np.testing.assert_array_equal(together[name][item, : alone.shape[1]], alone[0])


def test_a_head_finds_the_matches_of_numpy(head: tuple[reference.Weights, Head]) -> None:
    weights, stage = head
    total = equal = uncertain = 0
    for counts in [*COUNTS, (300, 300)]:
        pair = matching_pair(counts)
        expected_matches, expected_scores = reference.head(weights, pair["x0"], pair["x1"], THRESHOLD)
        matches0, scores = (output[0] for output in run_head(stage, batched([pair])))
        matched = (expected_matches >= 0) | (matches0 >= 0)
        same = matched & (expected_matches == matches0)
        total, equal = total + np.count_nonzero(matched), equal + np.count_nonzero(same)
        uncertain += np.count_nonzero((expected_scores > 0) & (expected_scores < 0.6))
        np.testing.assert_allclose(scores[same], expected_scores[same], atol=SCORE_ERROR, rtol=0)
        assert ((matches0 >= 0) == (scores > THRESHOLD)).all() and (scores[matches0 < 0] == 0).all()
    assert total > 400 and uncertain > 100  # the matches are many, and not all of them easy
    assert equal >= EQUAL_MATCHES * total


def test_padding_and_other_pairs_do_not_change_a_head(head: tuple[reference.Weights, Head]) -> None:
    _, stage = head
    pairs = [matching_pair(counts) for counts in COUNTS]
    matches0, scores = run_head(stage, batched(pairs, length=307))
    for item, (pair, (count, _)) in enumerate(zip(pairs, COUNTS, strict=True)):
        alone_matches, alone_scores = run_head(stage, batched([pair]))
        np.testing.assert_array_equal(matches0[item, :count], alone_matches[0])
        np.testing.assert_array_equal(scores[item, :count], alone_scores[0])
        assert (matches0[item, count:] == -1).all() and (scores[item, count:] == 0).all()


@pytest.mark.parametrize("counts", [(900, 300), (150, 2500)])
@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.6])
def test_a_head_of_many_blocks_finds_the_matches_of_numpy(
    head: tuple[reference.Weights, Head], counts: tuple[int, int], threshold: float
) -> None:
    """The similarities exceed one block. Without a threshold all of them may be matches."""
    weights, stage = head
    pair = matching_pair(counts)
    expected_matches, expected_scores = reference.head(weights, pair["x0"], pair["x1"], threshold)
    feed = {**batched([pair]), "threshold": np.array(threshold, np.float32)}
    matches0, scores = (output[0] for output in stage.run(feed))
    matched = (expected_matches >= 0) | (matches0 >= 0)
    same = matched & (expected_matches == matches0)
    assert np.count_nonzero(same) >= EQUAL_MATCHES * np.count_nonzero(matched) > 50
    np.testing.assert_allclose(scores[same], expected_scores[same], atol=SCORE_ERROR, rtol=0)


def test_a_thread_has_one_scratch_buffer_for_all_stages(
    layer: tuple[reference.Weights, Layer], head: tuple[reference.Weights, Head]
) -> None:
    def addresses() -> set[int]:
        run_layer(layer[1], batched([random_pair((300, 300))]))
        largest = session._scratch.buffer
        run_head(head[1], batched([matching_pair((200, 200))]))
        run_layer(layer[1], batched([random_pair((5, 300))]))
        return {id(largest), id(session._scratch.buffer)}

    (here,) = addresses()
    with ThreadPoolExecutor(1) as pool:
        (elsewhere,) = pool.submit(addresses).result()
    assert here != elsewhere


def test_the_scratch_buffer_grows_with_the_keypoints_and_not_with_their_product(
    head: tuple[reference.Weights, Head],
) -> None:
    sizes = [head[1]._scratch_bytes(count, count, THRESHOLD) for count in (4096, 16384)]
    assert sizes[0] < 8 << 20 and sizes[1] < 4.1 * sizes[0]


def test_a_stage_keeps_no_second_copy_of_its_weights(layer: tuple[reference.Weights, Layer]) -> None:
    weights, stage = layer
    kept = sum(array.nbytes for array in stage._referenced)
    assert kept < 1.1 * sum(array.nbytes for array in weights.values())
    assert [name for name in vars(stage) if "array" in name] == []


@pytest.mark.parametrize("name", ["self_block.key.weight.int8", "cross_block.ffn.norm.bias", "deciders.both.weight"])
def test_a_weight_of_the_wrong_shape_is_refused(tmp_path: Path, name: str) -> None:
    weights = reference.random_layer(np.random.default_rng(0), has_self_attention=True, has_decisions=True)
    weights[name] = weights[name][:-4]
    with pytest.raises(ValueError):
        Layer(reference.write(weights, tmp_path / "layer.npz"))
