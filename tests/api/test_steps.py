"""The functions of `lgbatch`: a model step by step, its conversions, progress, and what two threads may do."""

import shutil
import threading
from pathlib import Path

import pytest

import lgbatch
from lgbatch.reconstruction.evaluation.formats.colmap_model import is_model

pytestmark = pytest.mark.weights
SETTINGS = lgbatch.Settings(max_keypoints=512, resize=512)


@pytest.fixture(scope="module")
def photos(gallery: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for photo in sorted(gallery.glob("*.jpg"))[:5]:
        shutil.copy(photo, folder)
    return folder


@pytest.fixture(scope="module")
def workspace(models: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace made step by step, with a text path, as in a script."""
    out = tmp_path_factory.mktemp("out") / "workspace"
    events: list[lgbatch.ProgressEvent] = []
    with lgbatch.report_progress(events.append):
        extracted = lgbatch.extract(str(photos), str(out), models=models, settings=SETTINGS)
        paired = lgbatch.pairs(out, models=models, settings=SETTINGS)
        matched = lgbatch.match(out, models=models, settings=SETTINGS)
        mapped = lgbatch.reconstruct(out, settings=SETTINGS)
    assert (extracted.images, paired.pairs, matched.pairs, mapped.registered_images) == (5, 10, 10, 5)
    assert mapped.refined and not mapped.failures and "import" in matched.seconds
    steps = list(dict.fromkeys(event.step for event in events))
    assert [step for step in steps if step in ("extract", "match", "mapping", "refine")] == [
        "extract",
        "match",
        "mapping",
        "refine",
    ]
    assert {"cameras", "database"} <= set(steps)
    last = {event.step: event for event in events}
    assert (last["match"].done, last["match"].total) == (10, 10) and all(event.ended for event in last.values())
    return out


def test_finished_steps_are_skipped_and_the_estimate_writes_nothing(models: Path, workspace: Path) -> None:
    before = sorted(workspace.rglob("*"))
    estimate = lgbatch.estimate_pairs(workspace, models=models, settings=SETTINGS)
    assert estimate.pairs == estimate.matched == 10 and estimate.seconds == 0
    assert sorted(workspace.rglob("*")) == before
    assert lgbatch.match(workspace, models=models, settings=SETTINGS).finished_already
    assert lgbatch.import_matches(workspace, settings=SETTINGS).finished_already
    assert lgbatch.refine(workspace, settings=SETTINGS).finished_already


def test_matches_without_a_database_are_imported_later(models: Path, workspace: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(workspace, copy)
    (copy / "database.db").unlink()
    lgbatch.match(copy, models=models, settings=SETTINGS, database=False)
    assert not (copy / "database.db").exists()
    imported = lgbatch.import_matches(copy, settings=SETTINGS)
    assert (copy / "database.db").exists() and not imported.finished_already


def test_a_finished_model_is_evaluated_undistorted_and_converted(workspace: Path, tmp_path: Path) -> None:
    evaluation = lgbatch.evaluate(workspace, workspace / "sparse" / "0")
    assert evaluation.cameras == 5 and not evaluation.unregistered
    done = lgbatch.undistort(workspace, tmp_path / "dense", flat=True)
    assert done.images == 5 and is_model(tmp_path / "dense" / "sparse" / "0")
    converted = lgbatch.convert(tmp_path / "dense", tmp_path / "dense", to="nerfstudio")
    assert (tmp_path / "dense" / "transforms.json") in converted.files
    report = lgbatch.write_report(workspace, tmp_path / "page.html")
    assert report.page.is_file() and report.facts.is_file() and "5" in report.headline
    triangulated = lgbatch.triangulate(workspace, workspace / "sparse" / "0")
    assert triangulated.model.registered_images == 5
    with pytest.raises(lgbatch.LgbatchError, match="no photo of the model has a position in EXIF"):
        lgbatch.georeference(workspace)
    with pytest.raises(lgbatch.InputError, match="give one of --to and --from"):
        lgbatch.convert(workspace, tmp_path / "nothing")


def test_new_photos_are_localized(models: Path, workspace: Path, gallery: Path, tmp_path: Path) -> None:
    new = sorted(gallery.glob("*.jpg"))[5]
    found = lgbatch.localize(workspace, new, output=tmp_path / "localized", models=models)
    assert [photo.name for photo in found.photos] == [new.name] and (tmp_path / "localized" / "poses.json").is_file()


def test_a_second_thread_is_refused_while_a_workspace_is_in_use(models: Path, workspace: Path, photos: Path) -> None:
    """As a second command is."""
    refused: list[str] = []

    def extract_too() -> None:
        try:
            lgbatch.extract(photos, workspace, models=models, settings=SETTINGS)
        except lgbatch.WorkspaceError as error:
            refused.append(str(error))

    def on_event(event: lgbatch.ProgressEvent) -> None:
        if not refused:
            thread = threading.Thread(target=extract_too)
            thread.start()
            thread.join()

    (workspace / "finished.json").unlink()
    with lgbatch.report_progress(on_event):
        lgbatch.match(workspace, models=models, settings=SETTINGS)
    assert len(refused) == 1 and "is in use by another thread of this process" in refused[0]
