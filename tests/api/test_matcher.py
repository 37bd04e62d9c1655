"""BatchMatcher: the matches of the pairs one by one, from memory and from a store; features that do not fit."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lgbatch import BatchMatcher, Failure, Features, FeatureStore, InputError, Matches, ModelError
from lgbatch.config import Settings
from lgbatch.matching.lightglue import Matcher
from tests.helpers.extraction import cut

pytestmark = pytest.mark.weights
SETTINGS = Settings(extractor="disk", device="cpu", precision="fp32")
COUNTS = {"a": 300, "b": 170, "c": 260, "d": 90}
PAIRS = [("a", "b"), ("c", "a"), ("b", "c"), ("d", "a"), ("none", "b")]


@pytest.fixture(scope="module")
def features(demo_features: Sequence[Features]) -> dict[str, Features]:
    found = {name: cut(image, count) for (name, count), image in zip(COUNTS.items(), demo_features, strict=False)}
    return found | {"none": cut(demo_features[5], 0)}


@pytest.fixture(scope="module")
def matcher(models: Path) -> BatchMatcher:
    return BatchMatcher(models=models, settings=SETTINGS)


def test_pairs_of_unequal_counts_have_the_matches_that_they_have_alone(
    models: Path, matcher: BatchMatcher, features: dict[str, Features]
) -> None:
    found = dict(matcher.match(features, PAIRS))
    assert found.keys() == set(PAIRS) and (matcher.device, matcher.precision) == ("cpu", "fp32")
    alone, total = Matcher(models, SETTINGS), 0
    for first, second in PAIRS[:-1]:
        pair = alone.encode(features[first]), alone.encode(features[second])
        (expected,) = alone.match([pair], 1)
        matches = found[first, second]
        assert isinstance(matches, Matches)
        np.testing.assert_array_equal(matches.indices, expected.indices)
        np.testing.assert_allclose(matches.scores, expected.scores, atol=1e-5)
        total += len(matches.indices)
    assert total > 100
    empty = found["none", "b"]
    assert isinstance(empty, Matches) and empty.indices.shape == (0, 2)


def test_features_of_a_store_are_matched_as_those_in_memory(
    matcher: BatchMatcher, features: dict[str, Features], tmp_path: Path
) -> None:
    path = tmp_path / "features.h5"
    with FeatureStore(path, append={"extractor": "disk"}) as store:
        for name, image in features.items():
            store.write(name, image)
        store.commit()
    with FeatureStore(path) as store:
        stored = {name: store.read(name) for name in store.names()}
        for pair, matches in matcher.match(store, PAIRS):
            ((_, expected),) = matcher.match(stored, [pair])
            assert isinstance(matches, Matches) and isinstance(expected, Matches)
            np.testing.assert_array_equal(matches.indices, expected.indices)


def test_features_that_do_not_fit_fail_alone(matcher: BatchMatcher, features: dict[str, Features]) -> None:
    bad = features["d"]
    for replaced, reason in [
        (replace(bad, keypoints=bad.keypoints.astype(float)), "must be finite numbers of type float32"),
        (replace(bad, keypoints=bad.keypoints * np.float32(np.nan)), "must be finite numbers of type float32"),
        (replace(bad, descriptors=bad.descriptors[:5]), r"the shapes \(90, 2\) and \(5, 128\), not \(N, 2\) and"),
        (replace(bad, descriptors=bad.descriptors[:, :64]), ""),
    ]:
        found = dict(matcher.match(features | {"d": replaced}, PAIRS))
        failure = found["d", "a"]
        assert isinstance(failure, Failure) and failure.name == "d"
        assert re.search(reason, failure.reason)
        assert sum(isinstance(result, Matches) for result in found.values()) == len(PAIRS) - 1


def test_unknown_names_and_settings_are_refused_before_the_work(
    matcher: BatchMatcher, features: dict[str, Features], models: Path
) -> None:
    with pytest.raises(InputError, match=r"no features of e\.jpg"):
        matcher.match(features, [("a", "b"), ("a", "e.jpg")])
    with pytest.raises(InputError, match="unknown setting 'extractr'; did you mean 'extractor'"):
        BatchMatcher(models=models, extractr="disk")
    with pytest.raises(InputError, match="either settings or single changes"):
        BatchMatcher(models=models, settings=SETTINGS, give_up=False)
    with pytest.raises(ModelError, match="no LightGlue has been published for aliked-t16"):
        BatchMatcher(models=models, extractor="aliked-t16")
