"""Pairs and models that rest on little evidence: such pairs are rejected, such parts of a model are told."""

import contextlib
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from lgbatch.colmap.sqlite import verified_pairs
from lgbatch.config import Settings
from lgbatch.pipelines import sfm
from lgbatch.pipelines.summary import Summary
from lgbatch.reconstruction.advice import advice
from lgbatch.types import Pair
from tests.helpers.oriented import read, save
from tests.helpers.synthetic import Source, synthetic
from tests.reconstruction.helpers import fill, rerun, run


def spoil(source: Source, pair: Pair, right: int, wrong: int) -> None:
    """Keep so many right matches of a pair, and make others of it wrong."""
    matches = source.matches[pair]
    others = matches[right : right + wrong].copy()
    others[:, 1] = np.random.default_rng(0).permutation(others[:, 1])
    source.matches[pair] = np.concatenate([matches[:right], others])


@pytest.mark.parametrize("own", [True, False])
def test_a_pair_needs_more_inliers_the_smaller_their_part_of_its_matches(tmp_path: Path, own: bool) -> None:
    source = synthetic(tmp_path, 4)
    doubtful = Pair("1.jpg", "2.jpg")
    spoil(source, doubtful, 20, 60)
    spoil(source, Pair("1.jpg", "3.jpg"), 20, 0)
    spoil(source, Pair("1.jpg", "4.jpg"), 60, 100)
    database = fill(tmp_path, source)
    if not own:
        with contextlib.closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA application_id = 0")
    result = run(tmp_path)
    verified = set(verified_pairs(database))
    assert verified == {frozenset(pair) for pair in source.matches if pair != doubtful or not own}
    assert result.verified_pairs == len(verified)
    assert result.models[0].registered_images == 4 and not result.doubtful


def far_apart(folder: Path, matches: int) -> Source:
    """Six photos and two more, each of which has so many matches with each of the six."""
    source = synthetic(folder, 8)
    for pair in source.matches:
        if len({"7.jpg", "8.jpg"}.intersection(pair)) == 1:
            source.matches[pair] = source.matches[pair][:matches]
    return source


def test_a_part_that_few_matches_join_to_the_model_is_told(tmp_path: Path) -> None:
    fill(tmp_path, far_apart(tmp_path, 36))
    result = run(tmp_path)
    assert result.models[0].registered_images == 8 and not result.unregistered
    (part,) = result.doubtful
    assert (part.model, part.names) == (0, ["7.jpg", "8.jpg"]) and 20 < part.matches <= 36
    again = run(tmp_path)
    assert again.finished_already and again.doubtful == result.doubtful
    summary = Summary(Settings())
    summary.add_reconstruction(again, rerun())
    assert summary.exit_status == 1 and summary.as_dict()["doubtful"][0]["names"] == ["7.jpg", "8.jpg"]
    told = f"doubtful    model 0: 2 photos, joined to each of the others by at most {part.matches} matches"
    assert f"{told}, may be in a wrong place: 7.jpg, 8.jpg" in summary.format()


@pytest.mark.parametrize("mapper", ["incremental", "global"])
def test_a_part_that_enough_matches_join_is_not_doubtful(tmp_path: Path, mapper: str) -> None:
    fill(tmp_path, far_apart(tmp_path, 90))
    result = run(tmp_path, mapper=mapper)
    assert result.models[0].registered_images == 8 and not result.doubtful


@pytest.mark.parametrize(
    ("rotation", "said"), [("auto", "add photos between"), ("none", "--rotation auto --on-change")]
)
def test_the_advice_on_doubtful_photos(tmp_path: Path, rotation: str, said: str) -> None:
    fill(tmp_path, far_apart(tmp_path, 36))
    text = advice(run(tmp_path), rerun(rotation=rotation))
    assert text.startswith("for the doubtful photos, ") and said in text


@pytest.mark.weights
@pytest.mark.parametrize("turned", [{1, 3, 5, 7}, {4}])
def test_turned_photos_make_no_wrong_model_in_silence(
    models: Path, gallery: Path, tmp_path: Path, turned: set[int]
) -> None:
    for number in range(8):
        view = read(gallery / f"view_{number:02d}.jpg", (512, 384))
        save(tmp_path / "photos" / f"{number}.png", view[::-1, ::-1] if number in turned else view, 1)
    settings = Settings(max_keypoints=600, resize=512, precision="fp32", rotation="none", second_try=0)
    summary = sfm.run(tmp_path / "photos", tmp_path / "out", models=models, settings=settings)
    named = {photo.name for photo in summary.unregistered or []}
    named |= {name for part in summary.doubtful or [] for name in part.names}
    groups = [{f"{i}.png" for i in group} for group in (turned, set(range(8)) - turned)]
    assert summary.exit_status == 1
    assert named in groups  # one of the two groups is the largest part of the largest model
