"""The second try with SIFT, after a first one whose stand-in finds no matches."""

import dataclasses
import json
import shutil
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from lgbatch.api import matching
from lgbatch.cli import main
from lgbatch.colmap import import_stores
from lgbatch.config import Settings
from lgbatch.errors import LgbatchError, ReconstructionError
from lgbatch.matching import match
from lgbatch.pipelines import second_try, sfm
from lgbatch.pipelines.summary import Summary
from lgbatch.reconstruction import reconstruct
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import MatchStore
from lgbatch.types import Failure, Matches
from lgbatch.workspace.folder import Workspace
from tests.helpers.oriented import read
from tests.helpers.stand_in import StandIn, _Matcher
from tests.helpers.synthetic import content

VIEWS = 5
SIZE = (640, 480)


class Blind(_Matcher):
    """A matcher that finds nothing."""

    def match(self, pairs: list[object], tokens: int) -> list[Matches]:
        return [Matches(np.zeros((0, 2), np.int32), np.zeros(0, np.float32)) for _ in pairs]


@pytest.fixture
def photos(tmp_path: Path, gallery: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    StandIn.use(monkeypatch)
    monkeypatch.setattr(match, "open_matchers", lambda *arguments: [Blind(*arguments)])
    monkeypatch.setattr(sfm, "ensure_models", lambda *_: None)
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(VIEWS):
        view = read(gallery / f"view_{number:02d}.jpg", SIZE)
        cv2.imwrite(str(folder / f"{number}.jpg"), view[..., ::-1])
    return folder


def run(photos: Path, **changes: object) -> Summary:
    settings = Settings.load(**{"rotation": "none", "second_try": 1.0} | changes)
    return sfm.run(photos, photos.parent / "out", models=photos.parent, settings=settings)


def test_photos_that_are_left_out_are_registered_by_sift(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = Workspace(photos.parent / "out")
    summary = run(photos)
    assert summary.registered_images == VIEWS and not summary.unregistered and summary.exit_status == 0
    assert summary.second_try is not None and summary.second_try["better"]
    assert summary.second_try["registered_before"] == 0 and summary.second_try["photos"] == VIEWS
    assert f"second try  {VIEWS} photos with SIFT at up to 640 px: {VIEWS} more registered" in summary.format()
    assert json.loads(out.summary.read_text())["second_try"] == summary.second_try
    with FeatureStore(out.features) as first, FeatureStore(out.second.features) as second:
        counts = {name: (first.count(name), second.count(name)) for name in first.names()}
    copy = shutil.copyfile(out.database, photos.parent / "copy.db")  # opening a database changes its file
    keypoints = content(copy)["keypoints"]
    assert {name: len(points) for name, points in keypoints.items()} == {n: sum(c) for n, c in counts.items()}
    assert (out.sparse / "0" / "images.bin").is_file()
    assert not out.second.database.exists() and not out.second.sparse.exists()

    model, database = (out.sparse / "0" / "images.bin").read_bytes(), out.database.read_bytes()
    for stage in ("extract", "match_nearest", "import_joined", "verify_and_map"):
        monkeypatch.setattr(second_try, stage, lambda *_, **__: pytest.fail("ran again"))
    again = run(photos)
    assert again.finished_already and again.registered_images == VIEWS
    assert "more verified pairs\n" in again.format()
    assert again.second_try == summary.second_try and again.verified_pairs == summary.verified_pairs
    assert (out.sparse / "0" / "images.bin").read_bytes() == model and out.database.read_bytes() == database

    told = json.loads(CliRunner().invoke(main.app, ["reconstruct", "-w", str(out.root), "--json"]).stdout)
    assert told["finished_already"] and told["registered_images"] == VIEWS


def test_it_can_be_disabled_and_made_up_for(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = run(photos, second_try=0)
    assert summary.registered_images == 0 and summary.second_try is None
    assert not (photos.parent / "out" / "second").exists()
    with monkeypatch.context() as patch:
        patch.setattr(second_try, "_is_better", lambda *_: False)
        summary = run(photos)
    assert summary.second_try and not summary.finished_already
    assert run(photos, second_try=0.9).registered_images == VIEWS


def test_a_second_try_that_is_disabled_later_is_taken_out(photos: Path) -> None:
    assert run(photos).registered_images == VIEWS
    summary = run(photos, second_try=0)
    assert summary.registered_images == 0 and summary.second_try is None and not summary.finished_already
    out = Workspace(photos.parent / "out")
    with FeatureStore(out.features) as features:
        counts = {name: features.count(name) for name in features.names()}
    copy = shutil.copyfile(out.database, photos.parent / "copy.db")
    assert {name: len(points) for name, points in content(copy)["keypoints"].items()} == counts
    told = json.loads(CliRunner().invoke(main.app, ["reconstruct", "-w", str(out.root), "--json"]).stdout)
    assert told["finished_already"] and told["registered_images"] == 0
    assert run(photos, second_try=0).finished_already
    assert run(photos).registered_images == VIEWS


def test_matching_tells_that_it_takes_the_second_try_out(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(photos)
    monkeypatch.setattr(matching, "ensure_models", lambda *_: None)
    command = ["match", "-w", str(photos.parent / "out"), "--models", str(photos.parent), "--rotation", "none"]
    assert "without the second try" not in CliRunner().invoke(main.app, command).output
    (photos / "0.jpg").unlink()
    assert "database.db is without the second try now" in CliRunner().invoke(main.app, command).output
    assert "without the second try" not in CliRunner().invoke(main.app, command).output
    assert run(photos).registered_images == VIEWS - 1


def test_removed_images_leave_the_stores_of_the_second_try(photos: Path) -> None:
    out = Workspace(photos.parent / "out")
    run(photos)
    command = ["remove", "0.jpg", "3.jpg", "-w", str(out.root)]
    assert CliRunner().invoke(main.app, command).stdout.startswith("removed 2 images and 7 pairs")
    with FeatureStore(out.second.features) as features, MatchStore(out.second.matches) as matches:
        assert features.names() == ["1.jpg", "2.jpg", "4.jpg"]
        assert len(list(matches.groups())) == 3
    assert run(photos).registered_images == VIEWS


def test_removing_images_leaves_a_folder_of_the_user_as_it_is(photos: Path) -> None:
    out = Workspace(photos.parent / "out")
    run(photos, second_try=0)
    out.second.root.mkdir()
    out.second.features.write_bytes(b"mine")
    assert CliRunner().invoke(main.app, ["remove", "0.jpg", "-w", str(out.root)]).exit_code == 0
    assert out.second.features.read_bytes() == b"mine"


@pytest.mark.parametrize("error", [LgbatchError("no\nluck"), OSError("no\nluck")])
def test_an_error_leaves_out_the_second_try(photos: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(second_try, "import_joined", fail)
        summary = run(photos)
    assert summary.registered_images == 0 and len(summary.unregistered or ()) == VIEWS
    assert "second try  left out: no\\nluck\n" in summary.format()
    assert (photos.parent / "out" / "summary.json").is_file()
    assert run(photos).registered_images == VIEWS


def test_a_stale_model_is_taken_out_once_if_the_new_second_try_fails(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise LgbatchError("no luck")

    assert run(photos).registered_images == VIEWS
    monkeypatch.setattr(second_try, "import_joined", fail)
    assert run(photos, second_try=0.9).registered_images == 0
    monkeypatch.setattr(import_stores, "import_database", lambda *_, **__: pytest.fail("imported again"))
    monkeypatch.setattr(reconstruct, "verify_and_map", lambda *_: pytest.fail("mapped again"))
    summary = run(photos, second_try=0.9)
    assert summary.registered_images == 0 and summary.second_try == {"left_out": "no luck"}


def test_a_better_model_that_cannot_be_written_ends_the_run(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(second_try, "commit_draft", fail)
        with pytest.raises(ReconstructionError, match="disk full"):
            run(photos)
    assert run(photos).registered_images == VIEWS


def test_a_folder_of_the_user_is_left_as_it_is(photos: Path) -> None:
    second = Workspace(photos.parent / "out").second
    second.root.mkdir(parents=True)
    second.features.write_bytes(b"mine")
    summary = run(photos)
    assert summary.registered_images == 0 and "second try  left out: " in summary.format()
    assert [file.name for file in second.root.iterdir()] == ["features.h5"] and second.features.read_bytes() == b"mine"
    second.features.unlink()
    assert run(photos).registered_images == VIEWS


def test_a_photo_that_fails_is_listed_and_tried_again(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extract = second_try.extract

    def fail(*arguments: object, temporary: bool, **named: object) -> object:
        done = extract(*arguments, **named)
        return dataclasses.replace(done, failures=(Failure("extract", "0.jpg", "no luck", temporary=temporary),))

    monkeypatch.setattr(second_try, "extract", partial(fail, temporary=True))
    assert run(photos).second_try["failed"] == 1
    assert (
        "0.jpg (second): no luck" in CliRunner().invoke(main.app, ["errors", "-w", str(photos.parent / "out")]).stdout
    )
    monkeypatch.setattr(second_try, "extract", partial(fail, temporary=False))
    assert not run(photos).finished_already
    assert run(photos).finished_already
    monkeypatch.setattr(second_try, "extract", extract)
    settings = Settings.load(rotation="none", second_try=1.0)
    again = sfm.run(photos, photos.parent / "out", models=photos.parent, settings=settings, retry_failed=True)
    assert again.second_try["failed"] == 0 and again.registered_images == VIEWS
    assert not (photos.parent / "out" / "errors.jsonl").exists()


@pytest.mark.parametrize("step", ["extract", "match_nearest", "import_joined", "verify_and_map", "_publish"])
def test_a_run_that_ends_in_a_step_goes_on_there(photos: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    work = getattr(second_try, step)

    def stop(*arguments: object, **named: object) -> None:
        work(*arguments, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(second_try, step, stop)
        with pytest.raises(KeyboardInterrupt):
            run(photos)
    assert run(photos).registered_images == VIEWS


def test_a_photo_that_is_added_gets_its_place_as_in_a_fresh_run(photos: Path, gallery: Path) -> None:
    run(photos)
    cv2.imwrite(str(photos / "new.jpg"), read(gallery / f"view_{VIEWS:02d}.jpg", SIZE)[..., ::-1])
    assert run(photos).registered_images == VIEWS + 1
    out = Workspace(photos.parent / "out")
    after = content(out.database)
    shutil.rmtree(out.root)
    run(photos)
    assert content(out.database) == after


def test_a_worse_model_is_not_taken(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second_try, "_is_better", lambda *_: False)
    summary = run(photos)
    assert summary.registered_images == 0 and "SIFT at up to 640 px: no better model" in summary.format()
    assert len(summary.unregistered or ()) == VIEWS
    assert not (photos.parent / "out" / "sparse" / "0").exists()
    again = run(photos)
    assert again.finished_already and again.unregistered == summary.unregistered
