"""The reconstruct stage: synthetic scenes, and databases that are missing, empty, damaged, or would crash COLMAP."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lgbatch.errors import DatabaseError, ReconstructionError
from lgbatch.reconstruction.advice import advice
from lgbatch.types import Pair
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


def test_missing_and_empty_databases_and_other_files_are_rejected(tmp_path: Path) -> None:
    import pycolmap

    database = tmp_path / "database.db"
    with pytest.raises(ReconstructionError, match=r"no database .*lgbatch match"):
        run(tmp_path)
    assert not database.exists()
    pycolmap.Database.open(database).close()
    with pytest.raises(ReconstructionError, match=r"contains no images"):
        run(tmp_path)
    database.write_text("hello" * 1000)
    with pytest.raises(DatabaseError, match=r"not a COLMAP database"):
        run(tmp_path)


def test_matches_beyond_the_keypoints_are_rejected(tmp_path: Path) -> None:
    import pycolmap

    source = synthetic(tmp_path, 3)
    matches = source.matches.pop(Pair("1.jpg", "3.jpg"))
    database = fill(tmp_path, source)
    matches[0, 1] = 100_000
    with pycolmap.Database.open(database) as db:
        db.write_matches(1, 3, matches.astype(np.uint32))
    with pytest.raises(ReconstructionError, match=r"images 1 and 3 refer to keypoints that do not exist"):
        run(tmp_path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("UPDATE keypoints SET rows = -1 WHERE image_id = 1", "is damaged"),
        ("UPDATE keypoints SET data = x'00' WHERE image_id = 1", "COLMAP failed"),
        ("UPDATE matches SET pair_id = -1 WHERE pair_id = 2147483649", "refer to keypoints that do not exist"),
        (
            "UPDATE matches SET pair_id = 2147483647 * 7 + 9 WHERE pair_id = 2147483649",
            "images 7 and 9 refer to keypoints",
        ),
    ],
)
def test_rows_that_would_crash_colmap_are_rejected(tmp_path: Path, change: str, reason: str) -> None:
    database = fill(tmp_path, synthetic(tmp_path, 3))
    script = "import sqlite3, sys\nwith sqlite3.connect(sys.argv[1]) as c: c.execute(sys.argv[2])"
    subprocess.run([sys.executable, "-c", script, database, change], check=True)
    with pytest.raises(ReconstructionError, match=reason):
        run(tmp_path)
