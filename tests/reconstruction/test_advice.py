"""The advice on unregistered images, and the table of models."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lgbatch.reconstruction.advice import advice
from lgbatch.reconstruction.results import Model, Reconstruction, format_table
from tests.helpers.synthetic import synthetic
from tests.reconstruction.helpers import fill, run


def test_advice_on_images_without_keypoints(tmp_path: Path) -> None:
    source = synthetic(tmp_path, 3)
    source.points = {name: points[:0] for name, points in source.points.items()}
    source.matches = {}
    fill(tmp_path, source)
    result = run(tmp_path)
    assert (result.images, result.images_with_keypoints, result.models) == (3, 0, ())
    assert "0 of 3 images have keypoints" in advice(result) and "earlier" not in advice(result)


def test_advice_on_matches_without_a_common_geometry(tmp_path: Path) -> None:
    source = synthetic(tmp_path, 3)
    rng = np.random.default_rng(0)
    for pair, indices in source.matches.items():
        source.matches[pair] = np.stack([indices[:12, 0], rng.permutation(indices[:12, 1])], axis=1)
    fill(tmp_path, source)
    result = run(tmp_path)
    assert (result.matched_pairs, result.verified_pairs, result.models) == (3, 0, ())
    assert "3 pairs match, but none" in advice(result)


NO_MODEL = Reconstruction(
    images=9,
    images_with_keypoints=9,
    matched_pairs=30,
    verified_pairs=20,
    most_inliers=500,
    models=(),
    seconds_verification=1.0,
    seconds_mapping=1.0,
)


@pytest.mark.parametrize(
    ("changes", "mapper", "cause", "flag"),
    [
        ({"images_with_keypoints": 1}, "incremental", "1 of 9 images have keypoints", "--resize 0"),
        ({"matched_pairs": 0, "verified_pairs": 0}, "incremental", "no two images match", "--pairing exhaustive"),
        ({"verified_pairs": 0}, "incremental", "30 pairs match, but none", "--max-keypoints"),
        ({"most_inliers": 40}, "incremental", "the best has 40 inlier matches", "--max-keypoints"),
        ({}, "incremental", "hardly moved", "--camera-mode single"),
        ({}, "global", "three images", "--mapper incremental"),
    ],
)
def test_advice_names_cause_and_flag(changes: dict[str, int], mapper: str, cause: str, flag: str) -> None:
    text = advice(replace(NO_MODEL, **changes), mapper)
    assert cause in text and flag in text and "\n" not in text


def test_the_table_has_aligned_columns_and_one_line_per_model() -> None:
    lines = format_table([Model(11, 2227, 9786, 0.491, 4.394), Model(3, 50, 120, 0.7, 2.4)]).splitlines()
    assert len(lines) == 3 and len({len(line) for line in lines}) == 1
    assert lines[1].split() == ["0", "11", "2227", "9786", "0.49", "px", "4.39"]
