"""The kernels against the fp32 stages, on real weights and features."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lgbatch.config import Settings
from lgbatch.kernels import library
from lgbatch.matching.backend import EncodedImage
from lgbatch.matching.lightglue import Matcher
from lgbatch.runtime.models import Stages, open_stages
from lgbatch.types import Features

pytestmark = [
    pytest.mark.weights,
    pytest.mark.skipif(library.int8_unavailable_reason() is not None, reason=str(library.int8_unavailable_reason())),
]
Array = NDArray[Any]
Feed = dict[str, Array]
COUNTS = [(600, 500), (1, 1), (64, 65), (5, 300), (300, 1), (129, 128)]
HEAD_COUNTS = [(600, 500), (1, 1), (64, 65), (7, 500), (500, 3), (129, 200)]


@pytest.fixture(scope="module")
def fp32(models: Path) -> Stages:
    return open_stages(models, Settings(extractor="disk", device="cpu", precision="fp32"))


@pytest.fixture(scope="module")
def int8(models: Path) -> Stages:
    return open_stages(models, Settings(extractor="disk", device="cpu", precision="int8"))


@pytest.fixture(scope="module")
def encoded(models: Path, demo_features: Sequence[Features]) -> list[EncodedImage]:
    """The stem's outputs for two images."""
    matcher = Matcher(models, Settings(extractor="disk", device="cpu", precision="fp32"))
    return [matcher.encode(features) for features in demo_features[:2]]


@pytest.fixture(scope="module")
def head_inputs(fp32: Stages, encoded: Sequence[EncodedImage]) -> list[Array]:
    """x (N, W) of the two images after four layers."""
    feed = layer_feed(encoded, (600, 500))
    for layer in range(4):
        feed |= dict(zip(("x0", "x1"), run(fp32, f"layer{layer}", feed)[:2], strict=True))
    return [feed["x0"][0], feed["x1"][0]]


def layer_feed(encoded: Sequence[EncodedImage], counts: tuple[int, int], length: int = 0) -> Feed:
    """Inputs of a layer: the first keypoints of two images, padded with NaN to `length`."""
    feed: Feed = {}
    for side, (image, count) in enumerate(zip(encoded, counts, strict=True)):
        feed[f"lengths{side}"] = np.array([count])
        for name in ("x", "cosines", "sines"):
            values = getattr(image, name)[:count]
            feed[f"{name}{side}"] = np.full((1, max(length, count), values.shape[1]), np.nan, np.float32)
            feed[f"{name}{side}"][0, :count] = values
    return feed


def head_feed(inputs: Sequence[Array], pairs: Sequence[tuple[int, int]], length: int = 0) -> Feed:
    """Inputs of a head: a batch of the first keypoints of two images, padded with NaN to `length`."""
    feed: Feed = {"threshold": np.array(0.1, np.float32)}
    for side, x in enumerate(inputs):
        counts = [counts[side] for counts in pairs]
        feed[f"lengths{side}"] = np.array(counts)
        feed[f"x{side}"] = np.full((len(pairs), max(*counts, length), x.shape[1]), np.nan, np.float32)
        for item, count in enumerate(counts):
            feed[f"x{side}"][item, :count] = x[:count]
    return feed


def run(stages: Stages, stage: str, feed: Mapping[str, Array]) -> Sequence[Array]:
    names = stages.models[stage].session.inputs
    return stages.run(stage, {name: value for name, value in feed.items() if name in names})


def rms(values: Array) -> float:
    return float(np.sqrt(np.square(values).mean()))


def test_a_stem_equals_fp32_within_rounding(models: Path, demo_features: Sequence[Features]) -> None:
    settings = [Settings(extractor="disk", device="cpu", precision=precision) for precision in ("fp32", "int8")]
    expected, actual = (Matcher(models, each).encode(demo_features[0]) for each in settings)
    assert rms(expected.x - actual.x) < 0.01 * expected.x.std()
    np.testing.assert_allclose(actual.cosines, expected.cosines, atol=1e-5)
    np.testing.assert_allclose(actual.sines, expected.sines, atol=1e-5)


@pytest.mark.parametrize("stage", ["layer0", "layer1", "layer4", "layer8"])
@pytest.mark.parametrize("counts", COUNTS)
def test_a_layer_equals_fp32_within_rounding(
    fp32: Stages, int8: Stages, encoded: Sequence[EncodedImage], stage: str, counts: tuple[int, int]
) -> None:
    feed = layer_feed(encoded, counts)
    expected, actual = run(fp32, stage, feed), run(int8, stage, feed)
    for expected_y, y in zip(expected[:2], actual[:2], strict=True):
        assert rms(expected_y - y) < 0.05 * expected_y.std()
    for expected_decisions, decisions in zip(expected[2:], actual[2:], strict=True):
        assert np.abs(expected_decisions - decisions).mean() < 0.025


@pytest.mark.parametrize("stage", ["layer0", "layer3", "layer8"])
def test_padding_and_other_pairs_do_not_change_a_layer(
    int8: Stages, encoded: Sequence[EncodedImage], stage: str
) -> None:
    feeds = [layer_feed(encoded, counts, length=700) for counts in COUNTS]
    together = run(int8, stage, {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]})
    for item, counts in enumerate(COUNTS):
        alone = run(int8, stage, layer_feed(encoded, counts))
        sides = [0, 1, 0, 0, 1, 1]  # of y0, y1, confidence0, matchability0, confidence1, matchability1
        for side, batch_output, output in zip(sides, together, alone, strict=False):
            assert np.isfinite(output).all()
            np.testing.assert_array_equal(batch_output[item, : counts[side]], output[0])


def test_a_layer_keeps_its_accuracy_if_exponentials_overflow(
    fp32: Stages, int8: Stages, encoded: Sequence[EncodedImage]
) -> None:
    """Inputs far larger than the network's: the exponentials of their similarities overflow float.

    The first panel of keys is small, so the first estimate of the row maximum is far too small for the others.
    """
    feed = layer_feed(encoded, (300, 300))
    for side in (0, 1):
        feed[f"x{side}"] = feed[f"x{side}"] * np.float32(60)
        feed[f"x{side}"][0, :64] *= np.float32(1e-3)
    expected, actual = run(fp32, "layer3", feed), run(int8, "layer3", feed)
    for expected_y, y in zip(expected[:2], actual[:2], strict=True):
        assert np.isfinite(y).all()
        assert rms(expected_y - y) < 0.1 * expected_y.std()


def test_a_head_finds_the_matches_of_fp32(fp32: Stages, int8: Stages, head_inputs: Sequence[Array]) -> None:
    equal = total = 0
    for counts in HEAD_COUNTS:
        feed = head_feed(head_inputs, [counts])
        (matches0, scores), (expected_matches, expected_scores) = (
            [output[0] for output in run(stages, "head3", feed)] for stages in (int8, fp32)
        )
        same = (expected_matches >= 0) & (matches0 == expected_matches)
        equal += np.count_nonzero(same)
        total += np.count_nonzero((expected_matches >= 0) | (matches0 >= 0))
        np.testing.assert_allclose(scores[same], expected_scores[same], atol=0.03)
    assert total > 400 and equal >= 0.995 * total


def test_padding_and_other_pairs_do_not_change_a_head(int8: Stages, head_inputs: Sequence[Array]) -> None:
    matches0, scores = run(int8, "head3", head_feed(head_inputs, HEAD_COUNTS, length=640))
    for item, (m, n) in enumerate(HEAD_COUNTS):
        alone_matches, alone_scores = run(int8, "head3", head_feed(head_inputs, [(m, n)]))
        np.testing.assert_array_equal(matches0[item, :m], alone_matches[0])
        np.testing.assert_array_equal(scores[item, :m], alone_scores[0])
        assert (matches0[item, m:] == -1).all() and (matches0[item] < n).all()
