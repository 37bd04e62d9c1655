"""A merge checks each result, tells what is missing, damaged or failed, and changes nothing when it is repeated."""

import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from lgbatch.cli.main import app
from lgbatch.pipelines import sfm
from lgbatch.shards.merge import merge, plan_retry
from lgbatch.shards.work import current_step
from lgbatch.storage.upkeep.remove import remove_images
from lgbatch.workspace.ledger import Ledger
from tests.shards.helpers import SETTINGS, Set, differences, state
from tests.torture.harness import contents


def test_a_repeated_merge_changes_nothing(planned: Set, single: Path) -> None:
    planned.plan()
    planned.do_step()
    assert merge(planned.out).next_step == "match-1"
    before = state(planned.out)
    assert len(merge(planned.out).missing) == 7 and state(planned.out) == before
    planned.do_step()
    first = merge(planned.out)
    before = state(planned.out)
    assert merge(planned.out) == first and first.finished and state(planned.out) == before
    assert differences(planned.out, single) == []


@pytest.mark.parametrize("kind", ["extract", "match"])
@pytest.mark.parametrize(
    "how", ["truncated store", "changed store", "no store", "no marker", "torn marker", "changed marker"]
)
def test_a_damaged_result_is_told_and_done_again(planned: Set, single: Path, kind: str, how: str) -> None:
    planned.plan(3)
    planned.do_step()
    if kind == "match":
        merge(planned.out)
        planned.do_step()
    step = current_step(planned.folder)
    unit = step.units[1].name
    shard, marker = planned.folder.shard(step.name, unit), planned.folder.marker(step.name, unit)
    good = shard.read_bytes()
    if how == "truncated store":
        shard.write_bytes(good[:-100])
    elif how == "changed store":
        shard.write_bytes(good[:-100] + bytes(100))
    elif how == "no store":
        shard.unlink()
    elif how == "no marker":
        marker.unlink()
    elif how == "torn marker":
        marker.write_bytes(marker.read_bytes()[:40])
    else:
        marker.write_text(json.dumps(json.loads(marker.read_text()) | {"items": 7}))
    merged = merge(planned.out)
    assert merged.missing == (f"{step.name} {unit}",) and not merged.next_step and not merged.finished
    assert len(merged.damaged) == (how != "no marker") and not marker.exists()
    planned.do_step()
    assert shard.read_bytes() == good
    assert planned.finish().finished and differences(planned.out, single) == []


def test_damage_of_an_earlier_step_is_found_at_the_end(planned: Set, single: Path) -> None:
    first = planned.plan(3)
    planned.do_step()
    merge(planned.out)
    planned.do_step()
    shard = planned.folder.shard(first.name, first.units[2].name)
    content = shard.read_bytes()
    shard.write_bytes(content[:-9] + bytes(9))
    merged = merge(planned.out)
    assert merged.missing == (f"extract-1 {first.units[2].name}",) and not merged.finished
    assert planned.finish().finished and differences(planned.out, single) == []


def test_failed_photos_are_told_and_retried_alone(planned: Set, single: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(planned.photos, photos)
    planned.photos = photos
    good = (photos / "more/006.png").read_bytes()
    (photos / "more/006.png").write_bytes(b"no photo")
    planned.plan(9)
    with (photos / "a.png").open("ab") as file:  # after the plan
        file.write(b" ")
    merged = planned.finish()
    assert merged.finished and (merged.images, merged.failures) == (7, 2)
    reasons = {entry.name: entry.reason for entry in Ledger(planned.out).entries()}
    assert "has changed since it was planned" in reasons["a.png"] and set(reasons) == {"a.png", "more/006.png"}
    before = state(planned.out)
    assert merge(planned.out) == merged and state(planned.out) == before
    (photos / "more/006.png").write_bytes(good)
    (retry,) = plan_retry(planned.out)
    assert retry.retry and sum(unit.items for unit in retry.units) == 2
    merged = planned.finish()
    assert merged.finished and (merged.images, merged.failures) == (9, 0)
    assert not (planned.out / "errors.jsonl").exists()
    stores, expected = contents.read(planned.out), contents.read(single)  # image ids follow the order of the imports
    assert stores.features.keys() == expected.features.keys() and len(stores.matches) == 36
    assert all(contents.equal(item, expected.items[name]) for name, item in stores.items.items())
    assert plan_retry(planned.out) == []


def test_a_plan_of_one_photo_has_no_pairs(planned: Set, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    shutil.copy(planned.photos / "a.png", photos)
    planned.photos = photos
    planned.plan()
    merged = planned.finish()
    assert merged.finished and (merged.images, merged.pairs) == (1, 0)


def test_a_merge_after_a_run_leaves_what_the_run_has_added(planned: Set, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(planned.photos, photos)
    planned.photos = photos
    left_out = (photos / "a.png").rename(tmp_path / "a.png")
    planned.plan(2)
    merged = planned.finish()
    left_out.rename(photos / "a.png")
    sfm.run(photos, planned.out, models=planned.models, settings=SETTINGS)
    before = state(planned.out)
    assert merge(planned.out) == merged and state(planned.out) == before
    (planned.out / "database.db").unlink()
    assert merge(planned.out).finished and (planned.out / "database.db").exists()


def test_photos_that_were_removed_before_the_end_come_back(planned: Set, single: Path) -> None:
    planned.plan(2)
    planned.do_step()
    merge(planned.out)
    remove_images(planned.out / "features.h5", planned.out / "matches.h5", ["a.png"])
    assert planned.finish().finished and differences(planned.out, single) == []


def test_the_command_that_maps_keeps_features_and_matches(planned: Set) -> None:
    planned.plan(2, settings=replace(SETTINGS, resize=512, max_keypoints=100, filter_threshold=0.2))
    merged = planned.finish()
    before = contents.read(planned.out).items
    stores = [(planned.out / name).stat().st_ino for name in ("features.h5", "matches.h5")]
    app(shlex.split(merged.command)[1:], standalone_mode=False)
    after = contents.read(planned.out).items
    assert before.keys() == after.keys() and all(contents.equal(item, after[name]) for name, item in before.items())
    assert stores == [(planned.out / name).stat().st_ino for name in ("features.h5", "matches.h5")]
    assert (planned.out / "sparse/0").is_dir() and "--resize 512" in merged.command
    moved = planned.out.rename(planned.out.with_name("moved"))
    assert f"-o {moved}" in merge(moved).command
