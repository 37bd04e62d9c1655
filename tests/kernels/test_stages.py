"""The kernels against the same stages in single precision, on real weights and features."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lgbatch.config import Settings
from lgbatch.kernels import library as kernels
from lgbatch.matching.backend import EncodedImage
from lgbatch.matching.lightglue import Matcher
from lgbatch.runtime.models import Stages, open_stages
from lgbatch.types import Features

pytestmark = [
    pytest.mark.weights,
    pytest.mark.skipif(kernels.unavailable_reason() is not None, reason=str(kernels.unavailable_reason())),
]
Feed = dict[str, NDArray[Any]]
COUNTS = [(600, 500), (1, 1), (64, 65), (5, 300), (300, 1), (129, 128)]


@pytest.fixture(scope="module")
def exact(models: Path) -> Stages:
    return open_stages(models, Settings(device="cpu", precision="fp32"))


@pytest.fixture(scope="module")
def quick(models: Path) -> Stages:
    return open_stages(models, Settings(device="cpu", precision="int8"))


@pytest.fixture(scope="module")
def stems(models: Path, demo_features: Sequence[Features]) -> list[EncodedImage]:
    matcher = Matcher(models, Settings(device="cpu", precision="fp32"))
    return [matcher.encode(features) for features in demo_features[:2]]


def pair(stems: Sequence[EncodedImage], counts: tuple[int, int], length: int = 0, padding: float = np.nan) -> Feed:
    """What a layer takes of the first points of two images; what is beyond them is poison."""
    feed: Feed = {}
    for side, (stem, count) in enumerate(zip(stems, counts, strict=True)):
        feed[f"lengths{side}"] = np.array([count])
        for name in ("x", "cosines", "sines"):
            values = getattr(stem, name)[:count]
            feed[f"{name}{side}"] = np.full((1, max(length, count), values.shape[1]), padding, np.float32)
            feed[f"{name}{side}"][0, :count] = values
    return feed


def taken(stages: Stages, stage: str, feed: Mapping[str, NDArray[Any]]) -> Sequence[NDArray[Any]]:
    names = stages.models[stage].session.inputs
    return stages.run(stage, {name: value for name, value in feed.items() if name in names})


@pytest.mark.parametrize("stage", ["layer0", "layer1", "layer4", "layer8"])
@pytest.mark.parametrize("counts", COUNTS)
def test_a_layer_is_that_of_single_precision_within_rounding(
    exact: Stages, quick: Stages, stems: Sequence[EncodedImage], stage: str, counts: tuple[int, int]
) -> None:
    feed = pair(stems, counts)
    expected, found = taken(exact, stage, feed), taken(quick, stage, feed)
    for theirs, ours in zip(expected[:2], found[:2], strict=True):
        error = np.sqrt(np.square(theirs - ours).mean()) / theirs.std()
        assert error < 0.05  # a part in 30 at most of what 8 bits leave of each product
    for theirs, ours in zip(expected[2:], found[2:], strict=True):
        assert np.abs(theirs - ours).mean() < 0.02


@pytest.mark.parametrize("stage", ["layer0", "layer3", "layer8"])
def test_padding_and_other_pairs_change_nothing_in_a_layer(
    quick: Stages, stems: Sequence[EncodedImage], stage: str
) -> None:
    feeds = [pair(stems, counts, 700) for counts in COUNTS]
    batch = {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
    together = taken(quick, stage, batch)
    for row, counts in enumerate(COUNTS):
        alone = taken(quick, stage, pair(stems, counts))
        sides = [0, 1, 0, 0, 1, 1]  # of y0, y1, confidence0, matchability0, confidence1, matchability1
        for side, every, one in zip(sides, together, alone, strict=False):
            assert np.isfinite(one).all()
            np.testing.assert_array_equal(every[row, : counts[side]], one[0])


def test_exponentials_beyond_the_range_are_taken_again(
    exact: Stages, quick: Stages, stems: Sequence[EncodedImage]
) -> None:
    """Numbers many times as large as any of the network's: similarities of which single precision knows no exponential.

    The first panel of keys has small ones, so that what it tells of the range is wrong.
    """
    feed = pair(stems, (300, 300))
    for side in (0, 1):
        feed[f"x{side}"] = feed[f"x{side}"] * np.float32(60)
        feed[f"x{side}"][0, :64] *= np.float32(1e-3)
    expected, found = taken(exact, "layer3", feed), taken(quick, "layer3", feed)
    for theirs, ours in zip(expected[:2], found[:2], strict=True):
        assert np.isfinite(ours).all()
        assert np.sqrt(np.square(theirs - ours).mean()) < 0.1 * theirs.std()


def test_a_head_finds_the_matches_of_single_precision(
    exact: Stages, quick: Stages, stems: Sequence[EncodedImage]
) -> None:
    feed = pair(stems, (600, 500))
    for layer in range(4):
        feed |= dict(zip(("x0", "x1"), taken(exact, f"layer{layer}", feed)[:2], strict=True))
    points = feed["x0"][0], feed["x1"][0]
    threshold = np.array(0.1, np.float32)
    same = total = 0
    counts = [(600, 500), (1, 1), (64, 65), (7, 500), (500, 3), (129, 200)]
    batch: Feed = {"threshold": threshold}
    for side in (0, 1):
        batch[f"lengths{side}"] = np.array([both[side] for both in counts])
        batch[f"x{side}"] = np.full((len(counts), 640, 256), np.nan, np.float32)
        for row, both in enumerate(counts):
            batch[f"x{side}"][row, : both[side]] = points[side][: both[side]]
    matches0, scores = taken(quick, "head3", batch)
    for row, (m, n) in enumerate(counts):
        alone = {"x0": points[0][None, :m], "x1": points[1][None, :n], "threshold": threshold}
        alone |= {"lengths0": np.array([m]), "lengths1": np.array([n])}
        ours, theirs = (taken(stages, "head3", alone) for stages in (quick, exact))
        np.testing.assert_array_equal(matches0[row, :m], ours[0][0])
        np.testing.assert_array_equal(scores[row, :m], ours[1][0])
        assert (matches0[row, m:] == -1).all() and (matches0[row] < n).all()
        both_found = (theirs[0][0] >= 0) & (ours[0][0] == theirs[0][0])
        same += np.count_nonzero(both_found)
        total += np.count_nonzero((theirs[0][0] >= 0) | (ours[0][0] >= 0))
        np.testing.assert_allclose(ours[1][0][both_found], theirs[1][0][both_found], atol=0.03)
    assert total > 400 and same >= 0.995 * total


def test_a_machine_without_them_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "load_library", lambda: None)
    assert "C compiler" in str(kernels.unavailable_reason())
