"""The staged LightGlue against the published one, and batches against one pair at a time."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from lgbatch.config import Settings
from lgbatch.kernels import library as kernels
from lgbatch.matching.lightglue import Matcher, confidence_threshold
from lgbatch.runtime.registry import model_path
from lgbatch.types import Features, Matches
from lgbatch.workspace.prefetch import prefetch
from tests.helpers import upstream
from tests.helpers.extraction import cut

pytestmark = pytest.mark.weights
TOKENS = 10_000
FP32 = Settings(extractor="disk", device="cpu", precision="fp32")
INT8 = Settings(extractor="disk", device="cpu", precision="int8")


def index_pairs(matches: Matches) -> set[tuple[int, int]]:
    return {(int(a), int(b)) for a, b in matches.indices}


@pytest.fixture(scope="module")
def matcher(models: Path) -> Matcher:
    return Matcher(models, FP32)


def test_confidence_thresholds_equal_the_reference() -> None:
    network = upstream.lightglue()
    ours = [confidence_threshold(layer, 9) for layer in range(9)]
    np.testing.assert_array_equal(ours, network.confidence_thresholds.numpy())


def test_adaptive_matches_and_depth_equal_the_reference(matcher: Matcher, demo_features: Sequence[Features]) -> None:
    network = upstream.lightglue()
    common = total = 0
    for first, second in [(0, 1), (0, 3), (2, 6), (0, 8), (1, 11)]:
        pair = cut(demo_features[first], 600), cut(demo_features[second], 500)
        expected, expected_stop = upstream.match(network, *pair)
        ((matches, stop),) = matcher.match_and_stop([(matcher.encode(pair[0]), matcher.encode(pair[1]))], TOKENS)
        assert stop == expected_stop
        common += len(expected & index_pairs(matches))
        total += len(expected | index_pairs(matches))
    assert total > 300
    assert common >= 0.998 * total


def test_fixed_depth_equals_the_single_graph(models: Path, demo_features: Sequence[Features]) -> None:
    matcher = Matcher(models, replace(FP32, depth_confidence=-1, width_confidence=-1))
    session = ort.InferenceSession(str(model_path(models, "disk", "matcher")), providers=["CPUExecutionProvider"])
    pair = cut(demo_features[0], 400), cut(demo_features[4], 350)
    feed = {"threshold": np.array(0.1, np.float32)}
    for side, features in enumerate(pair):
        feed |= {
            f"keypoints{side}": features.keypoints[None],
            f"descriptors{side}": features.descriptors[None],
            f"size{side}": np.array([features.image_size], np.float32),
            f"lengths{side}": np.array([len(features.keypoints)]),
        }
    matches0, scores = session.run(None, feed)
    ((matches, stop),) = matcher.match_and_stop([(matcher.encode(pair[0]), matcher.encode(pair[1]))], TOKENS)
    assert stop == 9
    rows = np.flatnonzero(matches0[0] >= 0)
    assert len(rows) > 20
    np.testing.assert_array_equal(matches.indices, np.stack([rows, matches0[0][rows]], axis=1))
    np.testing.assert_allclose(matches.scores, scores[0][rows], atol=1e-4)


@pytest.mark.parametrize("fixed", [False, True])
def test_a_pair_has_the_same_matches_in_a_ragged_batch_and_alone(
    models: Path, demo_features: Sequence[Features], fixed: bool
) -> None:
    matcher = Matcher(models, replace(FP32, depth_confidence=-1, width_confidence=-1) if fixed else FP32)
    counts = [(1000, 900), (1, 1), (5, 1000), (1000, 1), (300, 310), (310, 300), (64, 700), (305, 305)]
    pairs = [
        (matcher.encode(cut(demo_features[i], m)), matcher.encode(cut(demo_features[i + 1], n)))
        for i, (m, n) in enumerate(counts)
    ]
    common = total = 0
    for pair, (matches, stop) in zip(pairs, matcher.match_and_stop(pairs, TOKENS), strict=True):
        ((alone, alone_stop),) = matcher.match_and_stop([pair], TOKENS)
        assert stop == alone_stop
        common += len(index_pairs(alone) & index_pairs(matches))
        total += len(index_pairs(alone) | index_pairs(matches))
        np.testing.assert_array_equal(np.diff(matches.indices[:, 0]) > 0, True)
    assert total > 300
    assert common >= 0.999 * total


@pytest.mark.skipif(kernels.int8_unavailable_reason() is not None, reason=str(kernels.int8_unavailable_reason()))
def test_int8_agrees_with_fp32_on_97_percent_of_the_matches(
    models: Path, matcher: Matcher, demo_features: Sequence[Features]
) -> None:
    int8 = Matcher(models, INT8)
    assert (matcher.stages.precision, int8.stages.precision) == ("fp32", "int8")
    common = total = 0
    for first, second, m, n in [(0, 1, 1000, 1000), (0, 3, 700, 512), (2, 6, 600, 900), (0, 8, 640, 64), (1, 2, 5, 1)]:
        pair = cut(demo_features[first], m), cut(demo_features[second], n)
        fp32_matches, int8_matches = (
            index_pairs(one.match([(one.encode(pair[0]), one.encode(pair[1]))], TOKENS)[0]) for one in (matcher, int8)
        )
        common += len(fp32_matches & int8_matches)
        total += len(fp32_matches | int8_matches)
    assert total > 500
    assert common >= 0.97 * total  # of the union, which is about 98.5 percent of either


def test_int8_matches_do_not_depend_on_the_number_of_threads(models: Path, demo_features: Sequence[Features]) -> None:
    int8 = Matcher(models, replace(INT8, threads=2))
    pairs = [(int8.encode(cut(demo_features[i], 600)), int8.encode(cut(demo_features[i + 1], 500))) for i in range(6)]
    alone = [index_pairs(int8.match([pair], TOKENS)[0]) for pair in pairs]
    together = list(prefetch(lambda pair: index_pairs(int8.match([pair], TOKENS)[0]), pairs * 3, threads=2, depth=4))
    assert together == alone * 3
    assert sum(map(len, alone)) > 300


def test_pruning_may_drop_all_points(models: Path, demo_features: Sequence[Features]) -> None:
    # No matchability exceeds 1, so that a width confidence of 0 prunes every confident point.
    matcher = Matcher(models, replace(FP32, depth_confidence=1, width_confidence=0))
    first, second = (matcher.encode(cut(demo_features[i], 200)) for i in (0, 11))
    ((matches, stop),) = matcher.match_and_stop([(first, second)], TOKENS)
    assert stop <= 9
    assert matches.indices.shape[1] == 2


def test_matching_no_pairs_returns_an_empty_list(matcher: Matcher) -> None:
    assert matcher.match([], TOKENS) == []


def test_give_up_stops_pairs_that_cannot_have_enough_matches(
    models: Path, matcher: Matcher, demo_features: Sequence[Features]
) -> None:
    giving_up = Matcher(models, replace(FP32, give_up=15))
    noise = np.random.default_rng(0).normal(0, 128**-0.5, (800, 128)).astype(np.float32)
    first, second = cut(demo_features[0], 800), cut(demo_features[1], 800)
    unrelated = replace(second, descriptors=noise)
    features = [(first, second), (first, unrelated), (cut(first, 10), second), (first, cut(demo_features[3], 700))]
    pairs = [(matcher.encode(a), matcher.encode(b)) for a, b in features]
    expected, results = (one.match_and_stop(pairs, TOKENS) for one in (matcher, giving_up))
    for i in (0, 3):  # pairs with many matches are as without give-up
        (expected_matches, expected_stop), (matches, stop) = expected[i], results[i]
        assert index_pairs(matches) == index_pairs(expected_matches) and stop == expected_stop
        assert len(matches.indices) > 50
    assert expected[1][1] > 2 and (len(results[1][0].indices), results[1][1]) == (0, 2)
    assert (len(results[2][0].indices), results[2][1]) == (0, 2)  # ten points cannot have fifteen matches
