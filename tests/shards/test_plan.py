"""A plan and its steps are written once."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lgbatch.errors import InputError, ModelError, WorkspaceError
from lgbatch.shards.folder import write_once
from lgbatch.shards.merge import merge
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
