"""The photos in the folder and the pairs file decide what the database holds, whatever the stores have from before."""

import json
import shutil
import sqlite3
from pathlib import Path

import cv2
import numpy as np
import pycolmap
import pytest

from lgbatch.config import Settings
from lgbatch.errors import InputError
from lgbatch.pairing.pairs_file import read_pairs
from lgbatch.pipelines import sfm
from lgbatch.pipelines.summary import Summary
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import MatchStore
from lgbatch.storage.upkeep.remove import remove_absent, remove_images
from lgbatch.workspace.folder import Workspace
from tests.helpers.stand_in import StandIn
from tests.helpers.synthetic import content

COUNT = 5


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Blank photos 0.png, 1.png, ...; stand-ins replace the networks."""
    StandIn.use(monkeypatch)
    monkeypatch.setattr(sfm, "ensure_models", lambda *_: None)
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(COUNT):
        cv2.imwrite(str(folder / f"{i}.png"), np.full((48, 64, 3), 40 * i, np.uint8))
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "out")


def run(photos: Path, out: Workspace, pairs: Path | None = None, **changes: object) -> Summary:
    return sfm.run(photos, out.root, models=photos.parent, pairs=pairs, settings=Settings.load(**changes))


def names_and_pairs(database: Path) -> tuple[list[str], int]:
    with pycolmap.Database.open(database) as db:
        return sorted(image.name for image in db.read_all_images()), db.num_matched_image_pairs()


def assert_like_a_fresh_run(photos: Path, out: Workspace, **changes: object) -> None:
    fresh = Workspace(out.root.with_name("fresh"))
    run(photos, fresh, **changes)
    assert content(out.database) == content(fresh.database)
    shutil.rmtree(fresh.root)


def test_a_deleted_photo_leaves_the_database_and_stays_in_the_store(photos: Path, out: Workspace) -> None:
    run(photos, out)
    assert names_and_pairs(out.database) == ([f"{i}.png" for i in range(COUNT)], 10)
    (photos / "1.png").unlink()
    summary = run(photos, out)
    assert names_and_pairs(out.database) == (["0.png", "2.png", "3.png", "4.png"], 6)
    assert summary.dropped_from_database == {"images": 1, "pairs": 4}
    assert "database    built anew; dropped: 1 image, 4 pairs" in summary.format()
    assert_like_a_fresh_run(photos, out)
    with FeatureStore(out.features) as store:
        assert "1.png" in store.names()


def test_photos_moved_to_a_subfolder_leave_no_old_names(photos: Path, out: Workspace) -> None:
    run(photos, out)
    (photos / "day1").mkdir()
    for i in range(COUNT):
        (photos / f"{i}.png").rename(photos / "day1" / f"{i}.png")
    run(photos, out)
    assert names_and_pairs(out.database) == ([f"day1/{i}.png" for i in range(COUNT)], 10)
    assert_like_a_fresh_run(photos, out)


def test_fewer_pairs_leave_fewer_pairs_in_the_database(photos: Path, out: Workspace) -> None:
    run(photos, out)
    run(photos, out, pairing="sequential", window=1)
    assert names_and_pairs(out.database)[1] == COUNT - 1
    assert_like_a_fresh_run(photos, out, pairing="sequential", window=1)
    run(photos, out)
    assert names_and_pairs(out.database)[1] == 10


def test_a_pairs_file_that_the_user_edited_is_not_overwritten(photos: Path, out: Workspace) -> None:
    run(photos, out)
    out.pairs.write_text("0.png 1.png\n1.png 2.png\n0.png 2.png\n")
    with pytest.raises(
        InputError, match=r"was edited since lgbatch wrote it: .*`lgbatch match -w .*--pairs .*or delete it"
    ):
        run(photos, out)
    assert len(read_pairs(out.pairs).pairs) == 3
    summary = run(photos, out, pairs=out.pairs)
    assert (summary.pairs, names_and_pairs(out.database)[1]) == (3, 3)
    out.pairs.unlink()
    assert run(photos, out).pairs == 10


def test_the_own_pairs_file_is_replaced_when_photos_come_and_go(photos: Path, out: Workspace) -> None:
    run(photos, out)
    (photos / "0.png").unlink()
    assert run(photos, out).pairs == 6


def test_a_database_of_colmap_only_gains_rows(photos: Path, out: Workspace) -> None:
    out.root.mkdir()
    other = photos / "other"
    other.mkdir()
    cv2.imwrite(str(other / "x.png"), np.zeros((48, 64, 3), np.uint8))
    pycolmap.Database.open(out.database).close()
    pycolmap.import_images(out.database, photos, pycolmap.CameraMode.PER_IMAGE, image_names=["other/x.png"])
    (other / "x.png").unlink()
    assert run(photos, out, camera_mode="image").other_images == 1
    names, pairs = names_and_pairs(out.database)
    assert (names, pairs) == ([f"{i}.png" for i in range(COUNT)] + ["other/x.png"], 10)
    (photos / "4.png").unlink()
    run(photos, out, camera_mode="image")
    assert "4.png" in names_and_pairs(out.database)[0]


def test_removed_images_leave_the_stores_with_their_pairs(photos: Path, out: Workspace) -> None:
    run(photos, out)
    assert remove_images(out.features, out.matches, ["1.png", "3.png"]) == (2, 7)
    with FeatureStore(out.features) as features, MatchStore(out.matches) as matches:
        assert features.names() == ["0.png", "2.png", "4.png"]
        assert len(matches.pairs(features.names())) == len(list(matches.groups())) == 3
    with pytest.raises(InputError, match=r"has no image 1\.png, \.\.\."):
        remove_images(out.features, out.matches, ["0.png", "1.png", "3.png"])
    for name in "1.png", "3.png":
        (photos / name).unlink()
    run(photos, out)
    assert names_and_pairs(out.database) == (["0.png", "2.png", "4.png"], 3)


def test_pack_drops_the_items_of_photos_that_have_left_the_folder(photos: Path, out: Workspace) -> None:
    run(photos, out)
    assert (remove_absent(out.features), remove_absent(out.matches)) == (0, 0)
    (photos / "1.png").unlink()
    assert (remove_absent(out.features), remove_absent(out.matches)) == (1, 4)
    with FeatureStore(out.features) as features, MatchStore(out.matches) as matches:
        assert features.names() == ["0.png", "2.png", "3.png", "4.png"]
        assert len(list(matches.groups())) == 6
    photos.rename(photos.with_name("not mounted"))
    assert remove_absent(out.features) == 0
    photos.mkdir()
    assert remove_absent(out.features) == 0


def test_a_copied_workspace_is_as_finished_as_the_original(photos: Path, out: Workspace) -> None:
    run(photos, out)
    copy = Workspace(out.root.with_name("copy"))
    shutil.copytree(out.root, copy.root)
    cv2.imwrite(str(photos / "9.png"), np.full((48, 64, 3), 9, np.uint8))
    shutil.rmtree(out.root)
    assert run(photos, copy).pairs == 15
    assert names_and_pairs(copy.database)[1] == 15
    copy.pairs.write_text("0.png 1.png\n")
    with pytest.raises(InputError, match="was edited"):
        run(photos, copy)


def test_a_workspace_of_0_1_goes_on(photos: Path, out: Workspace) -> None:
    run(photos, out)
    with sqlite3.connect(out.database) as connection:
        connection.execute("PRAGMA application_id = 0")
    stages = json.loads((out.root / "finished.json").read_text())["stages"]
    del stages["pairs"], stages["import"]["figures"]["rebuilt"]
    (out.root / "finished.json").write_text(json.dumps({"lgbatch": "0.1.0", "stages": stages}))
    (photos / "1.png").unlink()
    run(photos, out)
    assert names_and_pairs(out.database) == (["0.png", "2.png", "3.png", "4.png"], 6)


def test_edits_of_cameras_that_a_rebuilt_database_loses_are_told(photos: Path, out: Workspace) -> None:
    run(photos, out)
    with pycolmap.Database.open(out.database) as db:
        camera = db.read_all_cameras()[0]
        camera.focal_length = 123.0
        db.update_camera(camera)
    (photos / "1.png").unlink()
    summary = run(photos, out)
    assert summary.edited_cameras == 1
    assert "database    1 edited camera reset: keep known intrinsics in a cameras.txt, with --calibration" in (
        summary.format()
    )
    assert run(photos, out, camera_params="70,32,24,0").edited_cameras is None
    (photos / "2.png").unlink()
    assert run(photos, out, camera_params="70,32,24,0").edited_cameras is None


def test_images_in_no_pair_of_the_file_are_named_with_that_cause(photos: Path, out: Workspace) -> None:
    listed = photos.parent / "own pairs.txt"
    listed.write_text("0.png 1.png\n")
    summary = run(photos, out, listed)
    causes = {photo.name: (photo.cause, photo.reason) for photo in summary.unregistered or []}
    assert {name for name, (cause, _) in causes.items() if cause == "no pair"} == {"2.png", "3.png", "4.png"}
    assert causes["4.png"][1] == "in no pair of own pairs.txt"
    assert f"add pairs of them to {listed} and run `lgbatch run {photos} -o {out.root} --pairs '{listed}'" in (
        summary.advice or ""
    )
    assert {"pairing", "window"}.isdisjoint(summary.as_dict()["settings"])


def test_the_keypoints_are_those_of_the_photos_in_the_folder(photos: Path, out: Workspace) -> None:
    assert run(photos, out).keypoints == 20 * COUNT
    (photos / "1.png").unlink()
    (photos / "9.png").touch()
    assert run(photos, out).keypoints == 20 * (COUNT - 1)


def test_a_folder_of_photos_that_all_fail_is_told(photos: Path, out: Workspace) -> None:
    for photo in photos.iterdir():
        photo.write_bytes(b"")
    with pytest.raises(
        InputError, match=r"no photo can be extracted \(0\.png: the file is empty\): `lgbatch errors -w"
    ):
        run(photos, out)
    with pytest.raises(InputError, match=r"no photo can be extracted"):
        run(photos, out)
