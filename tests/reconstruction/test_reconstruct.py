"""Verification and mapping of synthetic scenes: registered images, reproducibility, largest model first."""

from pathlib import Path

import pytest

from lgbatch.reconstruction.advice import advice
from tests.helpers.synthetic import Source, content, synthetic
from tests.reconstruction.helpers import fill, poses, rerun, run


@pytest.mark.parametrize("mapper", ["incremental", "global"])
def test_every_image_is_registered(tmp_path: Path, mapper: str, capfd: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path, synthetic(tmp_path, 8))
    result = run(tmp_path, mapper=mapper)
    assert (result.images, result.images_with_keypoints) == (8, 8)
    assert (result.matched_pairs, result.verified_pairs) == (28, 28)
    (model,) = result.models
    assert model.registered_images == 8 and model.points3D > 150
    assert 0.2 < model.mean_reprojection_error < 1 and model.mean_track_length > 4
    assert model.observations == round(model.mean_track_length * model.points3D)
    assert advice(result, rerun(mapper=mapper)) == ""
    assert len(poses(tmp_path)) == 8
    assert not (tmp_path / "sparse.partial").exists()
    assert capfd.readouterr() == ("", "")


def test_a_second_run_gives_identical_geometries_and_poses(tmp_path: Path) -> None:
    database = fill(tmp_path, synthetic(tmp_path, 5))
    run(tmp_path)
    verified, first = content(database)["verified"], poses(tmp_path)
    assert len(verified) == 10
    (tmp_path / "finished.json").unlink()
    assert not run(tmp_path, threads=2).finished_already
    assert content(database)["verified"] == verified
    assert poses(tmp_path) == first


def test_two_images_are_enough(tmp_path: Path) -> None:
    fill(tmp_path, synthetic(tmp_path, 2))
    result = run(tmp_path)
    assert [m.registered_images for m in result.models] == [2]


@pytest.mark.parametrize("mapper", ["incremental", "global"])
@pytest.mark.parametrize("suffix", [".webp", ".jp2"])
def test_photos_that_colmap_cannot_read_are_registered(tmp_path: Path, mapper: str, suffix: str) -> None:
    fill(tmp_path, synthetic(tmp_path, 4, suffix=suffix))
    assert [m.registered_images for m in run(tmp_path, mapper=mapper).models] == [4]


def test_largest_model_comes_first(tmp_path: Path) -> None:
    small, large = synthetic(tmp_path, 4, "a"), synthetic(tmp_path, 6, "b", seed=1)
    both = Source(small.points | large.points, small.sizes | large.sizes, small.matches | large.matches)
    fill(tmp_path, both)
    result = run(tmp_path)
    assert [m.registered_images for m in result.models] == [6, 4]
    assert {name[0] for name in poses(tmp_path)} == {"b"}
    assert "6 of 10 images" in advice(result, rerun())
    assert sorted(p.name for p in (tmp_path / "sparse").iterdir()) == ["0", "1"]
