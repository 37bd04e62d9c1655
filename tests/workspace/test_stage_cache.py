import dataclasses
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from lgbatch.colmap import database, sqlite
from lgbatch.colmap.import_stores import import_stores
from lgbatch.config import Settings
from lgbatch.features import extractors
from lgbatch.matching import engine
from lgbatch.pairing.pairs_file import write_pairs
from lgbatch.pipelines import sfm
from lgbatch.pipelines.summary import Summary
from lgbatch.reconstruction.reconstruct import reconstruct
from lgbatch.reconstruction.results import Model, Reconstruction
from lgbatch.runtime.precision import extractor_kind
from lgbatch.runtime.registry import model_path
from lgbatch.storage import store
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import MatchStore
from lgbatch.types import Failure, Features, Matches
from lgbatch.workspace.folder import Workspace
from lgbatch.workspace.stage_cache import StageCache, signature
from tests.helpers import synthetic
from tests.helpers.stand_in import StandIn


@dataclasses.dataclass(frozen=True)
class Result:
    count: int
    failures: tuple[Failure, ...]


def test_a_result_is_cached_while_inputs_and_outputs_are_unchanged(tmp_path: Path) -> None:
    output = tmp_path / "output"
    output.write_text("result")
    result = Result(3, (Failure("extract", "\udcff\n", "reason", "Traceback"),))

    def cached_result(**made_from: Any) -> Result | None:
        return StageCache(tmp_path, "stage", **made_from).result(Result, failures=Failure)

    assert cached_result(a=1) is None
    StageCache(tmp_path, "stage", a=1).save(result, [output])
    assert cached_result(a=1) == result
    assert cached_result(a=2) is None
    assert StageCache(tmp_path, "other", a=1).result(Result, failures=Failure) is None
    assert "Traceback" not in (tmp_path / "finished.json").read_text()
    output.write_text("changed")
    assert cached_result(a=1) is None
    output.unlink()
    assert cached_result(a=1) is None


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"{}", b'{"lgbatch": "0.0.1", "stages": 3}', b"null"])
def test_a_damaged_cache_is_empty(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "finished.json").write_bytes(content)
    assert StageCache(tmp_path, "stage").result(Result, failures=Failure) is None
    StageCache(tmp_path, "stage").save(Result(3, ()), [])
    assert StageCache(tmp_path, "stage").result(Result, failures=Failure) is not None


def test_a_result_with_other_fields_is_ignored(tmp_path: Path) -> None:
    StageCache(tmp_path, "stage").save(Result(3, ()), [])
    assert StageCache(tmp_path, "stage").result(Reconstruction, models=Model) is None


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six photos and an unreadable one. Stand-ins replace the networks."""
    StandIn.use(monkeypatch)
    monkeypatch.setattr(sfm, "ensure_models", lambda *_: None)
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(6):
        cv2.imwrite(str(folder / f"{i}.png"), np.full((48, 64, 3), 99, np.uint8))
    (folder / "bad.jpg").write_text("no photo")
    return folder


def forbid_opening(monkeypatch: pytest.MonkeyPatch, *allowed: str) -> None:
    """Make opening models, stores and databases fail, except the functions in `allowed`."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("opened")

    for module, name in (extractors, "Extractor"), (engine, "Matcher"), (store, "open_to_read"), (sqlite, "_open"):
        if name not in allowed:
            monkeypatch.setattr(module, name, refuse)
    if "JournaledFile" not in allowed:
        monkeypatch.setattr(store, "JournaledFile", refuse)


def without_times(summary: Summary) -> dict[str, Any]:
    values = summary.as_dict()
    return {
        key: values[key]
        for key in values.keys()
        - {"seconds", "memory_mb", "peak_memory_mb", "finished_already", "dropped_from_database"}
    }


def test_a_repeated_run_reports_the_same_and_opens_nothing(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    first = sfm.run(photos, out, models=tmp_path)
    assert (first.matched_pairs, first.failed_images, first.finished_already) == (15, 1, False)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir() if path.name != "summary.json"}
    with monkeypatch.context() as patch:
        forbid_opening(patch)
        again = sfm.run(photos, out, models=tmp_path, settings=Settings(threads=3, max_errors=1))
    assert again.finished_already is True
    first.settings = again.settings
    assert without_times(again) == without_times(first)
    assert again.exit_status == first.exit_status == 1
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert "finished already" in again.format() and "finished already" not in first.format()
    assert json.loads((out / "summary.json").read_text())["finished_already"] is True


def add_photo(photos: Path, out: Path) -> None:
    cv2.imwrite(str(photos / "new.png"), np.full((48, 64, 3), 99, np.uint8))


def change_photo(photos: Path, out: Path) -> None:
    os.utime(photos / "1.png", ns=(1, 1))


def remove_photo(photos: Path, out: Path) -> None:
    (photos / "1.png").unlink()


def touch(name: str) -> Callable[[Path, Path], None]:
    return lambda photos, out: os.utime(out / name, ns=(1, 1))


def remove(name: str) -> Callable[[Path, Path], None]:
    return lambda photos, out: (out / name).unlink()


CHANGES = [add_photo, change_photo, remove_photo, touch("features.h5"), touch("matches.h5")]
CHANGES += [touch("database.db"), remove("database.db"), remove("matches.h5"), remove("finished.json")]


@pytest.mark.parametrize("change", CHANGES)
def test_changed_files_are_processed_again(photos: Path, tmp_path: Path, change: Callable[[Path, Path], None]) -> None:
    out = tmp_path / "out"
    first = sfm.run(photos, out, models=tmp_path)
    change(photos, out)
    again = sfm.run(photos, out, models=tmp_path)
    images = {add_photo: 8, remove_photo: 6}.get(change, 7)
    assert (again.images, again.failed_images) == (images, 1)
    assert again.matched_pairs == (images - 1) * (images - 2) // 2
    assert again.finished_already is False
    last = sfm.run(photos, out, models=tmp_path)
    assert last.finished_already is True
    assert without_times(last) == without_times(again)
    assert first.settings == last.settings


def test_changed_settings_and_retried_failures_are_not_skipped(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    sfm.run(photos, out, models=tmp_path)
    before = signature(out / "features.h5")
    assert sfm.run(photos, out, models=tmp_path, retry_failed=True).finished_already is False
    assert signature(out / "features.h5") == before  # so that later stages are skipped
    assert sfm.run(photos, out, models=tmp_path).finished_already is True
    shorter = sfm.run(photos, out, models=tmp_path, pairing="sequential", window=1)
    assert (shorter.pairs, shorter.finished_already) == (5, False)
    (photos / "bad.jpg").unlink()
    assert sfm.run(photos, out, models=tmp_path).exit_status == 1  # the stand-in's features give no model
    assert sfm.run(photos, out, models=tmp_path, retry_failed=True).finished_already is True


def test_a_changed_model_file_is_not_skipped(photos: Path, tmp_path: Path) -> None:
    settings = Settings()
    out, model = tmp_path / "out", model_path(tmp_path, settings.extractor, extractor_kind(settings))
    model.write_text("model")
    sfm.run(photos, out, models=tmp_path)
    assert sfm.run(photos, out, models=tmp_path).finished_already is True
    os.utime(model, ns=(1, 1))
    assert sfm.run(photos, out, models=tmp_path).finished_already is False


@pytest.fixture
def scene(tmp_path: Path) -> Workspace:
    """Stores that can be reconstructed."""
    source, files = synthetic.synthetic(tmp_path, 6), Workspace(tmp_path / "out")
    files.root.mkdir()
    with FeatureStore(files.features, append={}) as features, MatchStore(files.matches, append={}) as matches:
        for name, points in source.points.items():
            scores, descriptors = np.ones(len(points), np.float32), np.zeros((len(points), 4), np.float32)
            features.write(name, Features(points, scores, descriptors, source.sizes[name]))
        for pair, found in source.matches.items():
            found = found[np.argsort(found[:, 0])]
            matches.write(pair, Matches(found, np.ones(len(found), np.float32)), len(source.points[pair.a]))
    write_pairs(files.pairs, list(source.matches))
    return files


def run_import(files: Workspace) -> database.DatabaseCounts:
    with FeatureStore(files.features) as features:
        names = features.names()
    return import_stores(files, files.root.parent / "images", names, files.pairs, Settings())


def run_mapping(files: Workspace, mapper: Any = "incremental") -> Reconstruction:
    return reconstruct(files.database, files.root.parent / "images", files.sparse, settings=Settings(mapper=mapper))


def test_an_unchanged_database_is_mapped_once(scene: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_import(scene).images == 6
    first = run_mapping(scene)
    assert first.models[0].registered_images == 6
    with monkeypatch.context() as patch:
        forbid_opening(patch, "open_to_read")
        start = time.perf_counter()
        # Verification changed the database; the cache has its new signature.
        assert run_import(scene) == database.DatabaseCounts(finished_already=True)
        again = run_mapping(scene)
        assert time.perf_counter() - start < 1
    no_time = {"seconds_verification": 0.0, "seconds_mapping": 0.0}
    assert again == dataclasses.replace(first, **no_time, finished_already=True)


def test_a_deleted_or_changed_model_is_mapped_again(scene: Workspace) -> None:
    run_import(scene)
    first = run_mapping(scene)
    shutil.rmtree(scene.sparse)
    again = run_mapping(scene)
    assert again.models == first.models and not again.finished_already
    assert (scene.sparse / "0" / "images.bin").is_file()
    (scene.sparse / "0" / "points3D.bin").write_bytes(b"")
    assert not run_mapping(scene).finished_already
    (scene.sparse / "mine.txt").write_text("the user's own")
    assert run_mapping(scene).finished_already
    assert not run_mapping(scene, "global").finished_already


def test_an_import_after_mapping_maps_again(scene: Workspace) -> None:
    run_import(scene)
    run_mapping(scene)
    before = signature(scene.database)
    photo = scene.root.parent / "images"
    synthetic.photo(photo, "later.jpg", synthetic.SYNTHETIC_SIZE)
    with FeatureStore(scene.features, append={}) as features:
        points = np.ones((3, 2), np.float32)
        features.write(
            "later.jpg",
            Features(points, points[:, 0], np.zeros((3, 4), np.float32), synthetic.SYNTHETIC_SIZE),
        )
    assert run_import(scene).images == 1
    assert signature(scene.database) != before
    assert not run_mapping(scene).finished_already
