"""The second try with SIFT, after a first one whose stand-in finds no matches."""

import dataclasses
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from lgbatch.cli import main
from lgbatch.config import Settings
from lgbatch.matching import match
from lgbatch.pairing.candidates import exhaustive
from lgbatch.pairing.pairs_file import write_pairs
from lgbatch.photos.crawl import Crawl
from lgbatch.pipelines import second_try, sfm
from lgbatch.pipelines.summary import Summary
from lgbatch.reconstruction.results import Doubtful, Model, Reconstruction
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import MatchStore
from lgbatch.types import ImageRef, Matches
from lgbatch.workspace.folder import Workspace
from tests.helpers.oriented import read
from tests.helpers.stand_in import StandIn, _Matcher
from tests.helpers.synthetic import content, photo
from tests.workspace.helpers import random_features

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


def result(registered: int, verified: int, observations: int) -> Reconstruction:
    models = (Model(registered, 10, observations, 0.5, 3.0),) if registered else ()
    return Reconstruction(
        images=9,
        images_with_keypoints=9,
        matched_pairs=30,
        verified_pairs=verified,
        most_inliers=99,
        models=models,
        seconds_verification=0,
        seconds_mapping=0,
    )


@pytest.mark.parametrize(
    ("change", "better"),
    [
        ({}, False),
        ({"registered": 6}, True),
        ({"verified": 21}, True),
        ({"registered": 6, "verified": 19}, True),
        ({"registered": 6, "observations": 99}, False),
        ({"registered": 4, "verified": 30}, False),
        ({"registered": 0, "verified": 30}, False),
    ],
)
def test_what_is_better(change: dict[str, int], better: bool) -> None:
    first = {"registered": 5, "verified": 20, "observations": 100}
    assert second_try._is_better(result(**first | change), result(**first)) == better
    assert second_try._is_better(result(**first), result(0, 20, 0))


def test_doubtful_photos_do_not_make_a_model_better() -> None:
    more = result(7, 20, 120)
    doubtful = (Doubtful(0, ("a.jpg", "b.jpg"), 20), Doubtful(1, ("c.jpg",), 20))
    assert second_try._is_better(more, result(5, 20, 100))
    assert not second_try._is_better(dataclasses.replace(more, doubtful=doubtful), result(5, 20, 100))
    assert second_try._is_better(dataclasses.replace(more, doubtful=doubtful), result(4, 20, 100))


def first_try(folder: Path, names: list[str], left_out: list[str]) -> second_try.FirstTry:
    """All pairs of these photos, without matches."""
    workspace = Workspace(folder)
    with FeatureStore(workspace.features, append={}) as store:
        for seed, name in enumerate(names):
            photo(folder, name, (8, 6))
            store.write(name, random_features(seed))
    with MatchStore(workspace.matches, append={}):
        pass
    write_pairs(workspace.pairs, exhaustive(names))
    refs = [ImageRef(name, folder / name) for name in names]
    done = dataclasses.replace(result(5, 20, 100), weakly_joined=tuple(left_out))
    return second_try.FirstTry(workspace, folder, Crawl(refs, []), names, workspace.pairs, done)


def test_pairs_that_are_verified_support_those_that_are_not(tmp_path: Path) -> None:
    names = [f"{i}.jpg" for i in range(5)]
    first = first_try(tmp_path, names, ["4.jpg"])
    verified = {frozenset(("0.jpg", "4.jpg")): 90, frozenset(("0.jpg", "1.jpg")): 80, frozenset(("1.jpg", "2.jpg")): 70}
    tried, support = second_try._worthwhile(first, ["4.jpg"], verified, 1.0)
    assert tried == [("1.jpg", "4.jpg"), ("2.jpg", "4.jpg"), ("3.jpg", "4.jpg")]
    assert support == [("1.jpg", "2.jpg")]  # photo 0 is in no pair that is tried
    tried, support = second_try._worthwhile(first, ["4.jpg"], verified, 0.2)
    assert len(tried) == 2 and ("3.jpg", "4.jpg") in tried and not support  # the nearest in order is one of them
    assert second_try._worthwhile(first, ["4.jpg"], verified, 0.0) == ([], [])


def test_the_number_of_pairs_per_photo_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second_try, "_PARTNERS", 2)
    first = first_try(tmp_path, [f"{i}.jpg" for i in range(6)], ["0.jpg"])
    verified = {frozenset(pair): 50 for pair in exhaustive(list(first.names)) if "0.jpg" not in pair}
    tried, support = second_try._worthwhile(first, ["0.jpg"], verified, 1.0)
    assert len(tried) == 2 and support == [(tried[0].b, tried[1].b)]


def test_only_photos_with_a_chance_are_tried_again() -> None:
    causes = ["failed", "no other image", "masked", "few keypoints", "no matches", "other model"]
    unregistered = tuple(second_try.Unregistered(f"{cause}.jpg", cause, "") for cause in causes)
    done = dataclasses.replace(
        result(5, 20, 100),
        unregistered=unregistered,
        weakly_joined=("weak.jpg", "gone.jpg"),
        doubtful=(second_try.Doubtful(0, ["doubtful.jpg"], 28),),
    )
    names = [*(photo.name for photo in unregistered), "weak.jpg", "fine.jpg", "doubtful.jpg"]
    first = second_try.FirstTry(Workspace(Path()), Path(), None, names, Path(), done)
    assert first.left_out() == ["doubtful.jpg", "few keypoints.jpg", "no matches.jpg", "other model.jpg", "weak.jpg"]
