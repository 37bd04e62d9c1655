"""Each photo that is not registered is named with its cause; COLMAP's warnings are collected."""

import json
from pathlib import Path

import cv2
import numpy as np
import pycolmap
import pytest

from lgbatch.config import Settings
from lgbatch.pipelines.summary import Summary
from lgbatch.reconstruction.progress import Log
from lgbatch.reconstruction.results import Reconstruction
from lgbatch.reconstruction.unregistered import failed_photos, weakly_joined
from lgbatch.types import Failure, Pair
from lgbatch.workspace.ledger import Ledger
from tests.helpers.synthetic import Source, photo, synthetic
from tests.reconstruction.helpers import fill, rerun, run


def causes(result: Reconstruction) -> dict[str, str]:
    return {image.name: image.cause for image in result.unregistered}


def test_each_image_has_its_cause(tmp_path: Path) -> None:
    small, source = synthetic(tmp_path, 3, "b", seed=1), synthetic(tmp_path, 6, "a")
    rng = np.random.default_rng(0)
    for name, count in (("few.jpg", 9), ("alone.jpg", 300), ("wrong.jpg", 300), ("thin.jpg", 200)):
        photo(tmp_path / "images", name, (512, 384))
        source.points[name] = (rng.random((count, 2)) * (512, 384)).astype(np.float32)
        source.sizes[name] = (512, 384)
    source.matches[Pair("a1.jpg", "wrong.jpg")] = np.stack([np.arange(60), rng.permutation(60)], 1).astype(np.int32)
    source.points["thin.jpg"] = source.points["a2.jpg"] + np.float32(3)  # 18 points of one image: too few to register
    source.matches[Pair("a2.jpg", "thin.jpg")] = np.repeat(np.arange(18), 2).reshape(-1, 2).astype(np.int32)
    both = Source(source.points | small.points, source.sizes | small.sizes, source.matches | small.matches)
    fill(tmp_path, both)
    Ledger(tmp_path).add(Failure("extract", "torn.jpg", "the file is truncated"))
    result = run(tmp_path)
    assert [model.registered_images for model in result.models] == [6, 3]
    found = causes(result)
    assert {name: found[name] for name in sorted(found) if not name.startswith("b")} == {
        "alone.jpg": "no matches",
        "few.jpg": "few keypoints",
        "thin.jpg": "too few 3D points",
        "torn.jpg": "failed",
        "wrong.jpg": "not verified",
    }
    assert {cause for name, cause in found.items() if name.startswith("b")} == {"other model"}
    reasons = {image.name: image.reason for image in result.unregistered}
    assert reasons["torn.jpg"] == "failed (extract): the file is truncated"
    assert reasons["wrong.jpg"].startswith("1 pair with up to 60 matches, but none has enough")
    assert reasons["few.jpg"].endswith("9") and "sparse/1" in reasons["b1.jpg"]
    again = run(tmp_path)
    assert again.finished_already and again.unregistered == result.unregistered
    json.dumps([image.reason for image in again.unregistered])


def test_images_of_all_models_with_few_pairs_are_weakly_joined(tmp_path: Path) -> None:
    large, small = synthetic(tmp_path, 6, "a"), synthetic(tmp_path, 5, "b", seed=1)
    both = Source(large.points | small.points, large.sizes | small.sizes, large.matches | small.matches)
    fill(tmp_path, both)
    result = run(tmp_path)
    assert [model.registered_images for model in result.models] == [6, 5] and result.weakly_joined == ()
    with pycolmap.Database.open(tmp_path / "database.db") as db:
        ids = {image.name: image.image_id for image in db.read_all_images()}
        models = [[ids[name] for name in source.points] for source in (large, small)]
        db.delete_two_view_geometry(ids["b1.jpg"], ids["b2.jpg"])
        assert weakly_joined(db, models) == ("b1.jpg", "b2.jpg") and weakly_joined(db, []) == ()


def test_without_a_model_every_image_has_a_cause(tmp_path: Path) -> None:
    source = synthetic(tmp_path, 3)
    source.matches = {pair: indices[:12] for pair, indices in source.matches.items()}
    fill(tmp_path, source)
    assert set(causes(run(tmp_path)).values()) == {"not verified"}


def test_a_photo_whose_features_cannot_be_matched_has_failed(tmp_path: Path) -> None:
    photo(tmp_path, "a b.jpg", (64, 48))
    ledger = Ledger(tmp_path)
    for stage, name in (("match", "a b.jpg"), ("match", "x.jpg y.jpg"), ("crawl", "locked/"), ("crawl", "bad.jpg")):
        ledger.add(Failure(stage, name, "a reason"))
    assert [(photo.name, photo.reason) for photo in failed_photos(tmp_path, tmp_path)] == [
        ("a b.jpg", "failed (match): a reason"),
        ("bad.jpg", "failed (crawl): a reason"),
    ]


LINE = "W20261125 14:23:21.039322 140002474351488 global_pipeline.cc:62] {}\n"


def test_equal_warnings_count_as_one_and_the_log_stays_silent(capfd: pytest.CaptureFixture[str]) -> None:
    log = Log(echo=False)
    for line in (LINE.format("image 3 is small"), LINE.format("image 14 is small"), LINE.format("no prior")):
        log(line)
    log(LINE.replace("W", "I", 1).format("progress"))
    log("Warning: not glog's\n")
    assert [(warned.text, warned.count) for warned in log.warnings] == [("image 3 is small", 2), ("no prior", 1)]
    for number in range(100):
        log(LINE.format("x" * number))
    assert len(log.warnings) == 20
    assert capfd.readouterr() == ("", "")


def test_warnings_of_colmap_are_part_of_the_result(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path, synthetic(tmp_path, 6))
    result = run(tmp_path, mapper="global")
    assert any("prior focal lengths" in warned.text for warned in result.warnings)
    assert not any("GPU" in warned.text for warned in result.warnings)
    assert run(tmp_path, mapper="global").warnings == result.warnings
    assert capfd.readouterr() == ("", "")


def test_masks_that_hide_a_photo_explain_its_few_keypoints(tmp_path: Path) -> None:
    source = synthetic(tmp_path, 3, "a")
    for name in "a1.jpg", "a2.jpg":
        source.points[name] = source.points[name][:0]
    source.matches = {}
    fill(tmp_path, source)
    size = source.sizes["a1.jpg"][::-1]
    (tmp_path / "masks").mkdir()
    for name, rows in (("a1.jpg.png", 4), ("a2.png", size[0])):
        mask = np.zeros(size, np.uint8)
        mask[:rows] = 255
        cv2.imwrite(str(tmp_path / "masks" / name), mask)
    found = {image.name: image for image in run(tmp_path, masks=str(tmp_path / "masks")).unregistered}
    assert (
        found["a1.jpg"].cause == "masked"
        and (found["a1.jpg"].reason) == "few keypoints: 0, since its mask hides 99% of it"
    )
    assert found["a2.jpg"].cause == "few keypoints"
    assert (found["a3.jpg"].cause, found["a3.jpg"].reason) == (
        "no other image",
        "a model needs two photos with keypoints",
    )


def test_one_photo_gets_the_advice_alone(tmp_path: Path) -> None:
    source = synthetic(tmp_path, 1)
    fill(tmp_path, source)
    result = run(tmp_path)
    summary = Summary(Settings())
    summary.add_reconstruction(result, rerun())
    lines = summary.format().splitlines()
    assert lines[1:3] == [
        "models      none",
        "a model needs two photos: add photos of the same scene from other positions",
    ]
    assert not any(word in summary.format() for word in ("not registered", "COLMAP"))
    assert summary.exit_status == 1
