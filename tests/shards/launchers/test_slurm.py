"""`lgbatch shard run --on slurm`: arrays of units, and merges that submit the next step, with a stand-in of sbatch."""

import json
import sys
from pathlib import Path

import pytest

from lgbatch.shards.launchers import slurm
from tests.shards.helpers import Set, differences
from tests.shards.test_local import shard


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state of the stand-in, which is on PATH."""
    programs, state = tmp_path / "bin", tmp_path / "state"
    programs.mkdir()
    state.mkdir()
    stand_in = Path(__file__).with_name("stand_in_sbatch.py")
    (programs / "sbatch").write_text(f'#!/bin/sh\nexec "{sys.executable}" "{stand_in}" "$@"\n')
    (programs / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    monkeypatch.setenv("SBATCH_FOLDER", str(state))
    return state


def calls(state: Path) -> list[list[str]]:
    return [json.loads(line) for line in (state / "calls.jsonl").read_text().splitlines()]


def test_seven_units_are_one_run(planned: Set, single: Path, cluster: Path) -> None:
    planned.plan()
    options = ["--workers", 3, "--threads", 1, "--sbatch", "--partition=all --comment 'two words'"]
    text = shard("run", planned.out, "--on", "slurm", *options)
    assert "extract-1: 7 units in job array 1; job 2 merges" in text
    assert differences(planned.out, single) == []
    jobs = calls(cluster)
    assert [call[-1].rpartition("/")[2] for call in jobs] == [
        "extract-1.sh", "extract-1-merge.sh", "match-1.sh", "match-1-merge.sh"
    ]  # fmt: skip
    assert "--array=0-6%3" in jobs[0] and "--dependency=afterany:1" in jobs[1]
    assert all("--partition=all" in call and call[-2] == "two words" for call in jobs)
    merged = next((planned.folder.root / "slurm").glob("lgbatch-match-1-merge-*.log")).read_text()
    assert "finished: 9 images, 36 pairs in database.db" in merged


def test_a_task_that_is_lost_is_submitted_again(
    planned: Set, single: Path, cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SBATCH_LOSES", "0,2")
    planned.plan(3)
    shard("run", planned.out, "--on", "slurm", "--threads", 1)
    arrays = [option for call in calls(cluster) for option in call if option.startswith("--array")]
    assert arrays == ["--array=0-2", "--array=0,2", "--array=0-2"]
    assert differences(planned.out, single) == []


def test_tasks_that_fail_are_given_up_after_three_tries(planned: Set, cluster: Path) -> None:
    planned.plan(1)
    elsewhere = planned.out / "models"
    elsewhere.mkdir()
    for model in planned.models.glob("*extractor*"):
        (elsewhere / model.name).write_bytes(b"damaged")
    shard("run", planned.out, "--on", "slurm", "--threads", 1, "--models", elsewhere)
    results = [json.loads((cluster / f"{job}.ended").read_text()) for job in range(1, 7)]
    assert results == [[2], [0], [2], [0], [2], [2]]
    *_, last = sorted((planned.folder.root / "slurm").glob("*-merge-*.log"))
    assert "is not done after 3 tries: see the logs in" in last.read_text() and "Traceback" not in last.read_text()


def test_sbatch_that_is_missing_or_refuses_is_told_in_a_line(
    planned: Set, cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned.plan(1)
    refused = shard("run", planned.out, "--on", "slurm", "--sbatch", "--partition=no-such-partition", expect=2)
    assert "Invalid partition name specified; run the same command again" in refused and refused.count("\n") == 1
    unpaired = shard("run", planned.out, "--on", "slurm", "--sbatch", "--comment='", expect=2)
    assert "No closing quotation" in unpaired and unpaired.count("\n") == 1
    assert "no effect with --on local" in shard("run", planned.out, "--sbatch", "--partition=a", expect=2)
    monkeypatch.setenv("PATH", str(planned.models))
    missing = shard("run", planned.out, "--on", "slurm", expect=2)
    assert "there is no `sbatch`" in missing and missing.count("\n") == 1


def test_numbers_of_units_as_arrays() -> None:
    assert slurm._ranges([0, 1, 2, 5, 7, 8]) == "0-2,5,7-8"
    assert [len(block) for block in slurm._blocks(range(2500))] == [1000, 1000, 500]
