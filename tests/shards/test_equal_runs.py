"""The merge of units is the workspace of one run, array by array."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lgbatch.config import Settings
from lgbatch.pairing import methods
from lgbatch.pipelines import sfm
from lgbatch.shards.launchers.launcher import run_plan
from lgbatch.shards.launchers.local import LocalLauncher
from lgbatch.shards.merge import merge
from lgbatch.workspace.ledger import Ledger
from tests.shards.helpers import SETTINGS, Set, differences, state
from tests.torture.harness import contents


def test_seven_units_on_three_processes_are_one_run(planned: Set, single: Path) -> None:
    step = planned.plan()
    assert (len(step.units), sum(unit.items for unit in step.units)) == (7, 9)
    merged = run_plan(planned.out, LocalLauncher(Settings(threads=3), workers=3), lambda _: None)
    assert merged.finished and (merged.images, merged.pairs, merged.failures) == (9, 36, 0)
    assert differences(planned.out, single) == []


def test_rounds_are_planned_from_merged_results(
    planned: Set, single_in_rounds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(methods, "EXHAUSTIVE", 5)
    planned.plan()
    merged = planned.finish()
    tried = [json.loads(line) for line in (planned.out / "pairs.jsonl").read_text(encoding="utf-8").splitlines()]
    assert merged.step == f"match-{max(pair['round'] for pair in tried)}" != "match-1"
    assert differences(planned.out, single_in_rounds) == []


@pytest.mark.parametrize("method", ["sequential", "file"])
def test_other_choices_of_pairs(
    planned: Set, shard_photos: Path, shard_models: Path, tmp_path: Path, method: str
) -> None:
    settings, pairs = replace(SETTINGS, pairing="sequential" if method == "sequential" else "auto"), None
    if method == "file":
        pairs = tmp_path / "listed.txt"
        pairs.write_text("a.png\tday 1/b.bmp\nday-3/c.png\ta.png\nmore/005.png nothing.png\nmore/005.png a.png\n")
    planned.plan(3, settings, pairs)
    merged = planned.finish()
    assert merged.finished and merged.failures == (method == "file")
    other = tmp_path / "other"
    sfm.run(shard_photos, other, models=shard_models, settings=settings, pairs=pairs)
    assert differences(planned.out, other) == []
    if pairs:
        errors = [[entry.name for entry in Ledger(out).entries()] for out in (planned.out, other)]
        assert errors[0] == errors[1] == ["more/005.png nothing.png"]


def test_a_run_goes_on_from_a_merge_without_doing_anything_anew(planned: Set, single: Path) -> None:
    planned.plan()
    planned.finish()
    stores = [planned.out / name for name in ("features.h5", "matches.h5", "database.db", "pairs.txt")]
    before = {path: path.read_bytes() for path in stores[:2]}, contents.read(planned.out)
    summary = sfm.run(planned.photos, planned.out, models=planned.models, settings=SETTINGS)
    assert summary.registered_images == 9 and summary.exit_status == 0
    assert {path: path.read_bytes() for path in stores[:2]} == before[0]
    assert contents.differences(contents.read(planned.out), before[1]) == []
    assert differences(planned.out, single) == []
    merged = state(planned.out)
    assert merge(planned.out).finished
    assert state(planned.out) == merged


def test_twins_in_different_units_stay_apart(shard_photos: Path, shard_models: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    (photos / "a").mkdir(parents=True)
    sources = sorted(path for path in shard_photos.rglob("*.png"))
    for name, source in zip(("a/b.png", "a-b.png", "c.png", "d.png"), sources, strict=False):
        (photos / name).write_bytes(source.read_bytes())
    both = Set(photos, tmp_path / "out", shard_models)
    both.plan(6)
    both.finish()
    sfm.run(photos, tmp_path / "single", models=shard_models, settings=SETTINGS)
    assert differences(both.out, tmp_path / "single") == []
