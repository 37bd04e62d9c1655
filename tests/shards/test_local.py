"""`lgbatch shard` on the command line: workers here, their progress, and what they say when they cannot go on."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from lgbatch.errors import LgbatchError
from lgbatch.shards.launchers.launcher import run_plan
from lgbatch.shards.leases import Holder, claim, release
from lgbatch.shards.merge import Merged, merge
from lgbatch.shards.status import read_status
from lgbatch.shards.steps import Step, Unit
from lgbatch.shards.work import claim_units
from lgbatch.workspace.lock import locked
from tests.shards.helpers import Set, differences
from tests.torture.harness import stand_in_models

COMMAND = [sys.executable, "-m", "lgbatch", "shard"]


def shard(*arguments: object, expect: int = 0) -> str:
    done = subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == expect, done.stderr
    return done.stdout if not expect or done.stdout else done.stderr


def test_the_commands_from_a_plan_to_the_database(planned: Set, single: Path) -> None:
    out, options = planned.out, ["--models", planned.models, "--precision", "fp32", "--threads", "1"]
    assert "extract-1: 9 photos in 4 units" in shard("plan", planned.photos, "-o", out, "--units", 4, *options)
    assert "0 of 4 units done, 0 claimed, 4 open, 0 of 9 photos" in shard("status", out)
    assert "2 of 2 done" in shard("work", out, "--unit", 0, "--threads", 1)
    assert "missing: extract-1 00001-" in shard("merge", out, expect=1)
    assert "there is no unit 4" in shard("work", out, "--unit", 4, expect=2)
    assert "either --unit N or --claim" in shard("work", out, expect=2)
    printed = shard("run", out, "--on", "local", "--workers", 2, "--threads", 2)
    assert "finished: 9 images, 36 pairs" in printed and "next: match-1, 4 units" in printed
    steps = json.loads(shard("status", out, "--json"))["steps"]
    assert [(step["step"], step["done"], step["open"]) for step in steps] == [("extract-1", 4, 0), ("match-1", 4, 0)]
    assert json.loads(shard("merge", out, "--json"))["finished"]
    assert "nothing failed" in shard("plan", "-o", out, "--retry", "failed")
    assert "give it -o OUT only" in shard("plan", "-o", out, "--retry", "failed", "--resize", 512, expect=2)
    assert differences(out, single) == []


def test_a_worker_that_is_killed_is_told_and_its_unit_done_again(planned: Set, single: Path, tmp_path: Path) -> None:
    slow = stand_in_models.write(tmp_path / "slow", extractor_work=400)
    Set(planned.photos, planned.out, slow).plan(4)
    command = [*COMMAND, "run", str(planned.out), "--workers", "2", "--threads", "2"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        pid = int(claimed(planned.out)[0].partition(":")[2])
        os.kill(pid, signal.SIGKILL)
        error = process.communicate(timeout=120)[1]
    assert process.returncode == 0 and f"worker {pid} was ended by SIGKILL in unit 0000" in error
    assert "Traceback" not in error and differences(planned.out, single) == []


def test_ctrl_c_ends_all_workers_and_the_same_command_continues(planned: Set, single: Path, tmp_path: Path) -> None:
    slow = stand_in_models.write(tmp_path / "slow", extractor_work=400)
    Set(planned.photos, planned.out, slow).plan(4)
    command = [*COMMAND, "run", str(planned.out), "--workers", "2", "--threads", "2"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        pids = [int(worker.partition(":")[2]) for worker in claimed(planned.out, 2)]
        process.send_signal(signal.SIGINT)
        error = process.communicate(timeout=120)[1]
    assert process.returncode == 130 and "Traceback" not in error
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert not list(planned.folder.results("extract-1").glob(".*")) and read_status(planned.out)[0].claimed == 0
    shard("run", planned.out, "--workers", 1, "--threads", 1)
    assert differences(planned.out, single) == []


def test_a_worker_that_cannot_work_ends_the_run(planned: Set) -> None:
    planned.plan(2)
    (extractor,) = planned.models.glob("*extractor*")
    elsewhere = planned.out / "models"
    elsewhere.mkdir()
    (elsewhere / extractor.name).write_bytes(b"damaged")
    text = shard("run", planned.out, "--workers", 1, "--models", elsewhere, expect=2)
    assert "cannot be opened" in text and "a worker could not go on" in text and "Traceback" not in text


def test_a_launcher_that_does_nothing_is_given_up(planned: Set) -> None:
    class Idle:
        def run_units(self, out: Path, step: Step, units: list[Unit]) -> None:
            calls.append(len(units))

    planned.plan(2)
    calls: list[int] = []
    told: list[Merged] = []
    with pytest.raises(LgbatchError, match="is not done after 3 tries"):
        run_plan(planned.out, Idle(), told.append)
    assert calls == [2, 2, 2] and len(told) == 3


def claimed(out: Path, count: int = 1) -> tuple[str, ...]:
    """Wait until so many workers have a unit; returns them."""
    for _ in range(600):
        time.sleep(0.05)
        workers = read_status(out)[0].workers
        if len(workers) >= count:
            return workers
    raise AssertionError("no worker has claimed a unit")


def test_units_of_other_workers_are_waited_for(planned: Set, capsys: pytest.CaptureFixture[str]) -> None:
    step = planned.plan(2)
    lease, holder = planned.folder.lease(step.name, step.units[0].name), Holder.new()
    assert claim(lease, holder)

    def work() -> None:  # the other machine
        time.sleep(2)
        planned.worker().do_unit(step, step.units[0])
        release(lease, holder)

    @dataclass
    class Here:
        """Claims units in this process."""

        calls: int = 0

        def run_units(self, out: Path, step: Step, units: list[Unit]) -> None:
            self.calls += 1
            assert list(claim_units(planned.worker()))

    here, other = Here(), threading.Thread(target=work)
    other.start()
    assert run_plan(planned.out, here, lambda merged: None).finished and here.calls == 2
    other.join()
    assert f"waiting for 1 unit of workers on {holder.host}" in capsys.readouterr().err


def test_two_runs_of_a_plan_share_its_units(planned: Set, single: Path, tmp_path: Path) -> None:
    slow = stand_in_models.write(tmp_path / "slow", extractor_work=100)
    Set(planned.photos, planned.out, slow).plan(6)
    command = [*COMMAND, "run", str(planned.out), "--workers", "1", "--threads", "1", "--json"]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in runs:
        out, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
        assert out.splitlines()[-1].startswith("{") and json.loads(out.splitlines()[-1])["finished"]
    assert differences(planned.out, single) == []


def test_a_run_waits_for_the_merge_of_another(planned: Set, single: Path) -> None:
    planned.plan(2)
    planned.do_step()
    with locked(planned.out):  # as the merge of another run
        command = [*COMMAND, "run", str(planned.out), "--workers", "1", "--threads", "1"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        assert "waiting for it" in process.stderr.readline()
        assert merge(planned.out).next_step == "match-1"
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    assert "extract-1 merged" not in out and "finished: 9 images, 36 pairs" in out
    assert differences(planned.out, single) == []
