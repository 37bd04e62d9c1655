"""The staged engine against the published LightGlue, and batches against one pair at a time."""

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
EXACT = Settings(device="cpu", precision="fp32")
QUICK = Settings(device="cpu", precision="int8")


def rows(matches: Matches) -> set[tuple[int, int]]:
    return {(int(a), int(b)) for a, b in matches.indices}


@pytest.fixture(scope="module")
def matcher(models: Path) -> Matcher:
    return Matcher(models, EXACT)


def test_default_thresholds_are_the_references() -> None:
    network = upstream.lightglue()
    ours = [confidence_threshold(layer, 9) for layer in range(9)]
    np.testing.assert_array_equal(ours, network.confidence_thresholds.numpy())


def test_adaptive_matches_and_depth_are_the_references(matcher: Matcher, demo_features: Sequence[Features]) -> None:
    network = upstream.lightglue()
    same = total = 0
    for first, second in [(0, 1), (0, 3), (2, 6), (0, 8), (1, 11)]:
        pair = cut(demo_features[first], 600), cut(demo_features[second], 500)
        expected, stop = upstream.match(network, *pair)
        ((matches, depth),) = matcher.match_and_stop([(matcher.encode(pair[0]), matcher.encode(pair[1]))], TOKENS)
        assert depth == stop
        same += len(expected & rows(matches))
        total += len(expected | rows(matches))
    assert total > 300
    assert same >= 0.998 * total


def test_fixed_depth_is_the_single_graph(models: Path, demo_features: Sequence[Features]) -> None:
    matcher = Matcher(models, replace(EXACT, depth_confidence=-1, width_confidence=-1))
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
    ((matches, depth),) = matcher.match_and_stop([(matcher.encode(pair[0]), matcher.encode(pair[1]))], TOKENS)
    assert depth == 9
    found = np.flatnonzero(matches0[0] >= 0)
    assert len(found) > 20
    np.testing.assert_array_equal(matches.indices, np.stack([found, matches0[0][found]], axis=1))
    np.testing.assert_allclose(matches.scores, scores[0][found], atol=1e-4)


@pytest.mark.parametrize("fixed", [False, True])
def test_ragged_batches_give_what_each_pair_gives_alone(
    models: Path, demo_features: Sequence[Features], fixed: bool
) -> None:
    matcher = Matcher(models, replace(EXACT, depth_confidence=-1, width_confidence=-1) if fixed else EXACT)
    counts = [(1000, 900), (1, 1), (5, 1000), (1000, 1), (300, 310), (310, 300), (64, 700), (305, 305)]
    stems = [
        (matcher.encode(cut(demo_features[i], m)), matcher.encode(cut(demo_features[i + 1], n)))
        for i, (m, n) in enumerate(counts)
    ]
    together = matcher.match_and_stop(stems, TOKENS)
    same = total = 0
    for pair, (matches, depth) in zip(stems, together, strict=True):
        ((alone, alone_depth),) = matcher.match_and_stop([pair], TOKENS)
        assert depth == alone_depth
        same += len(rows(alone) & rows(matches))
        total += len(rows(alone) | rows(matches))
        np.testing.assert_array_equal(np.diff(matches.indices[:, 0]) > 0, True)
    assert total > 300
    assert same >= 0.999 * total


@pytest.mark.skipif(kernels.unavailable_reason() is not None, reason=str(kernels.unavailable_reason()))
def test_int8_finds_nearly_all_of_the_matches(
    models: Path, matcher: Matcher, demo_features: Sequence[Features]
) -> None:
    quick = Matcher(models, QUICK)
    assert (matcher.stages.precision, quick.stages.precision) == ("fp32", "int8")
    same = total = 0
    for first, second, m, n in [(0, 1, 1000, 1000), (0, 3, 700, 512), (2, 6, 600, 900), (0, 8, 640, 64), (1, 2, 5, 1)]:
        pair = cut(demo_features[first], m), cut(demo_features[second], n)
        found = [
            rows(engine.match([(engine.encode(pair[0]), engine.encode(pair[1]))], TOKENS)[0])
            for engine in (matcher, quick)
        ]
        same += len(found[0] & found[1])
        total += len(found[0] | found[1])
    assert total > 500
    assert same >= 0.97 * total  # of the union: about 98.5 percent of either


def test_int8_is_the_same_in_threads_at_once(models: Path, demo_features: Sequence[Features]) -> None:
    quick = Matcher(models, replace(QUICK, threads=2))
    pairs = [(quick.encode(cut(demo_features[i], 600)), quick.encode(cut(demo_features[i + 1], 500))) for i in range(6)]
    alone = [rows(quick.match([pair], TOKENS)[0]) for pair in pairs]
    together = list(prefetch(lambda pair: rows(quick.match([pair], TOKENS)[0]), pairs * 3, threads=2, depth=4))
    assert together == alone * 3
    assert sum(map(len, alone)) > 300


def test_all_points_may_leave(models: Path, demo_features: Sequence[Features]) -> None:
    # Nothing can be more likely than certain: with a width confidence of 0, every point that is sure leaves.
    matcher = Matcher(models, replace(EXACT, depth_confidence=1, width_confidence=0))
    stems = [matcher.encode(cut(demo_features[i], 200)) for i in (0, 11)]
    ((matches, depth),) = matcher.match_and_stop([(stems[0], stems[1])], TOKENS)
    assert depth <= 9
    assert matches.indices.shape[1] == 2


def test_no_pairs_are_no_work(matcher: Matcher) -> None:
    assert matcher.match([], TOKENS) == []


def test_pairs_are_given_up_on_that_cannot_have_enough_matches(
    models: Path, matcher: Matcher, demo_features: Sequence[Features]
) -> None:
    giving_up = Matcher(models, replace(EXACT, give_up=15))
    noise = np.random.default_rng(0).normal(0, 128**-0.5, (800, 128)).astype(np.float32)
    first, second = cut(demo_features[0], 800), cut(demo_features[1], 800)
    nonsense = replace(second, descriptors=noise)
    features = [(first, second), (first, nonsense), (cut(first, 10), second), (first, cut(demo_features[3], 700))]
    stems = [(matcher.encode(a), matcher.encode(b)) for a, b in features]
    usual, found = (one.match_and_stop(stems, TOKENS) for one in (matcher, giving_up))
    for one, other in (usual[0], found[0]), (usual[3], found[3]):
        assert rows(one[0]) == rows(other[0]) and one[1] == other[1] and len(one[0].indices) > 50
    assert usual[1][1] > 2 and (len(found[1][0].indices), found[1][1]) == (0, 2)
    assert (len(found[2][0].indices), found[2][1]) == (0, 2)  # ten points have no fifteen matches
