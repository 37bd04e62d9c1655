"""A plan and its steps are written once."""

import json
import shutil
from dataclasses import fields, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from lgbatch.config import Settings
from lgbatch.errors import InputError, ModelError, WorkspaceError
from lgbatch.shards.folder import write_once
from lgbatch.shards.merge import merge
from lgbatch.shards.plan import PATHS
from lgbatch.shards.steps import read_inputs
from lgbatch.shards.work import Worker
from tests.shards.helpers import SETTINGS, Set, state


def test_a_plan_is_written_once(planned: Set) -> None:
    step = planned.plan()
    before = state(planned.out)
    assert planned.plan() == step and state(planned.out) == before
    assert all(unit.seconds >= 0 and unit.bytes > 0 for unit in step.units)
    for change in ({"settings": replace(SETTINGS, max_keypoints=10)}, {"units": 3}):
        with pytest.raises(InputError, match="plan in a new folder"):
            planned.plan(**change)
    assert state(planned.out) == before


def test_units_depend_on_settings_that_change_their_results(planned: Set, tmp_path: Path) -> None:
    names = [unit.name for unit in planned.plan(settings=replace(SETTINGS, threads=2, filter_threshold=0.2)).units]
    others = [replace(SETTINGS, resize=512), replace(SETTINGS, pairing="sequential")]
    first, second = (
        [u.name for u in Set(planned.photos, tmp_path / f"{i}", planned.models).plan(settings=settings).units]
        for i, settings in enumerate(others)
    )
    assert not set(names) & set(first) and names == second


def test_a_workspace_with_stores_is_not_planned(planned: Set) -> None:
    planned.out.mkdir()
    (planned.out / "features.h5").touch()
    with pytest.raises(InputError, match=r"features\.h5 exists already"):
        planned.plan()


def test_inputs_that_were_changed_are_refused(planned: Set) -> None:
    step = planned.plan()
    path = planned.folder.inputs(step.name, step.units[0].name)
    content = json.loads(path.read_text())
    content["photos"] *= 2
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="was changed"):
        read_inputs(planned.folder, step, step.units[0])
    with pytest.raises(WorkspaceError, match="exists already"):
        write_once(path, {"other": 1})


def test_without_a_plan_each_command_says_so(tmp_path: Path) -> None:
    for command in (merge, lambda out: Worker(out, SETTINGS)):
        with pytest.raises(InputError, match="lgbatch shard plan"):
            command(tmp_path)


def test_other_weights_than_those_of_the_plan_are_refused(planned: Set) -> None:
    step = planned.plan()
    content = json.loads(planned.folder.plan.read_text())
    content["weights"]["extractor"] = "f" * 64
    planned.folder.plan.write_text(json.dumps(content))
    with pytest.raises(ModelError, match="other weights"):
        planned.worker().do_unit(step, step.units[0])


def test_a_changed_pairs_file_is_refused(planned: Set, tmp_path: Path) -> None:
    pairs = tmp_path / "listed.txt"
    pairs.write_text("a.png\tday 1/b.bmp\n")
    planned.plan(2, pairs=pairs)
    planned.do_step()
    pairs.write_text("a.png\tday-3/c.png\n")
    with pytest.raises(InputError, match="has changed since it was planned"):
        merge(planned.out)


def test_relative_paths_hold_in_other_folders(planned: Set, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "cameras.txt").write_text("1 SIMPLE_RADIAL 320 240 384 160 120 0\n")
    cv2.imwrite(str(tmp_path / "mask.png"), np.full((240, 320), 255, np.uint8))
    monkeypatch.chdir(tmp_path)
    planned.plan(2, settings=replace(SETTINGS, camera_mask="mask.png", calibration="cameras.txt"))
    monkeypatch.chdir("elsewhere")
    assert planned.finish().finished
    named = (field.name for field in fields(Settings) if isinstance(getattr(Settings(), field.name), str))
    words = {"masks", "mask", "calibration", "config", "positions", "descriptors", "from", "file"}
    assert {name for name in named if set(name.split("_")) & words} == set(PATHS)


def test_other_photos_than_the_planned_ones_are_told(
    planned: Set, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = Set(tmp_path / "photos", planned.out, planned.models)
    shutil.copytree(planned.photos, photos.photos)
    step = photos.plan(2)
    assert capsys.readouterr().err == ""
    (photos.photos / "a.png").rename(photos.photos / "new.png")
    assert photos.plan(2) == step
    error = capsys.readouterr().err
    assert "1 new photo, such as new.png" in error and "1 photo, such as a.png" in error
