"""Leases: one worker at a time does a unit, a dead one's lease is taken over, and double work gives the same bytes."""

import errno
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from lgbatch.errors import WorkspaceError
from lgbatch.shards import leases
from lgbatch.shards.leases import Holder, claim, kept, read_holder, release
from lgbatch.shards.status import read_status
from lgbatch.shards.work import attempt_folder, claim_units, leased, remove_abandoned
from tests.shards.helpers import Set


def dead_process() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_lease_has_one_holder_until_it_is_released(tmp_path: Path) -> None:
    path, first, second = tmp_path / "a.lease", Holder.new(), Holder.new()
    assert claim(path, first) and not claim(path, second)
    release(path, second)
    assert not claim(path, second)
    release(path, first)
    assert claim(path, second) and read_holder(path).token == second.token


@pytest.mark.parametrize("how", ["expired", "dead process", "torn"])
def test_a_dead_lease_is_taken_over_by_one_of_many(tmp_path: Path, how: str) -> None:
    path = tmp_path / "a.lease"
    if how == "torn":
        path.write_text("{")
        assert not claim(path, Holder.new())  # it may be being written
        os.utime(path, (time.time() - 1000,) * 2)
    else:
        changes = {"machine": "elsewhere"} if how == "expired" else {"pid": dead_process()}
        path.write_text(json.dumps(asdict(replace(Holder.new(), **changes))))
        if how == "expired":
            assert not claim(path, Holder.new())
            os.utime(path, (time.time() - 1000,) * 2)
    holders, barrier = [Holder.new() for _ in range(8)], threading.Barrier(8)
    got = []

    def take(holder: Holder) -> None:
        barrier.wait()
        if claim(path, holder):
            got.append(holder.token)

    threads = [threading.Thread(target=take, args=(holder,)) for holder in holders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1 and read_holder(path).token == got[0]
    assert [file.name for file in tmp_path.iterdir()] == ["a.lease"]


def test_a_lease_that_cannot_be_written_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, content = tmp_path / "a.lease", leases._content

    def full(holder: Holder) -> bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(leases, "_content", full)
    with pytest.raises(WorkspaceError, match="No space left"):
        claim(path, Holder.new())
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(content(replace(Holder.new(), pid=dead_process())))
    with pytest.raises(WorkspaceError, match="No space left"):
        claim(path, Holder.new())
    monkeypatch.undo()
    assert claim(path, Holder.new()) and list(tmp_path.iterdir()) == [path]


def test_a_lease_is_renewed_while_the_work_lasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "_RENEW_SECONDS", 0.02)
    path, holder = tmp_path / "a.lease", Holder.new()
    claim(path, holder)
    before = read_holder(path).renewed
    with kept([path], holder):
        for _ in range(200):
            time.sleep(0.02)
            if read_holder(path).renewed > before:
                break
    assert read_holder(path).renewed > before and read_holder(path).is_alive(time.time())


def test_clocks_of_machines_may_differ(planned: Set, monkeypatch: pytest.MonkeyPatch) -> None:
    step = planned.plan(2)
    lease = planned.folder.lease(step.name, step.units[0].name)
    other = replace(Holder.new(), machine="elsewhere", pid=dead_process())
    assert claim(lease, other)
    with attempt_folder(planned.folder, step, step.units[0]) as attempt:
        (attempt / "lease.json").write_bytes(leases._content(other))
        for wrong in (time.time() - 3600, time.time() + 3600):
            monkeypatch.setattr(leases.time, "time", lambda wrong=wrong: wrong)
            assert not claim(lease, Holder.new()) and remove_abandoned(planned.folder, step) == 0
            monkeypatch.undo()
    os.utime(lease, (time.time() - 1000,) * 2)
    assert claim(lease, Holder.new())
    assert not [path.name for path in planned.folder.results(step.name).glob(".*.time")]


def test_two_workers_on_one_unit_give_the_same_bytes(planned: Set) -> None:
    step = planned.plan(2)
    unit, results = step.units[0], []

    def work() -> None:
        results.append(planned.worker().do_unit(step, unit))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results[0].sha256 == results[1].sha256
    shard = planned.folder.shard(step.name, unit.name)
    first = shard.read_bytes()
    shard.unlink()
    planned.folder.marker(step.name, unit.name).unlink()
    assert planned.worker().do_unit(step, unit).sha256 == results[0].sha256 and shard.read_bytes() == first


def test_claims_leave_out_units_of_others_and_take_over_those_of_the_dead(planned: Set) -> None:
    step = planned.plan(3)
    alive, dead = (planned.folder.lease(step.name, unit.name) for unit in step.units[:2])
    assert claim(alive, Holder.new()) and claim(dead, replace(Holder.new(), pid=dead_process()))
    done = [unit for unit, _ in claim_units(planned.worker())]
    assert done == list(step.units[1:]) and alive.exists() and not dead.exists()
    alive.unlink()
    assert [unit for unit, _ in claim_units(planned.worker())] == [step.units[0]]
    assert list(claim_units(planned.worker())) == []


def test_units_by_number_are_shown_and_left_out_by_those_who_claim(planned: Set) -> None:
    step = planned.plan(2)
    with leased(planned.folder, step, step.units[0]) as held:
        assert held and (read_status(planned.out)[0].claimed, read_status(planned.out)[0].open) == (1, 1)
        with leased(planned.folder, step, step.units[0]) as again:
            assert not again
        assert [unit for unit, _ in claim_units(planned.worker())] == [step.units[1]]
    assert not planned.folder.lease(step.name, step.units[0].name).exists()


def test_folders_of_killed_attempts_are_removed(planned: Set) -> None:
    step = planned.plan(2)
    with attempt_folder(planned.folder, step, step.units[0]) as path:
        assert remove_abandoned(planned.folder, step) == 0
        holder = replace(Holder.new(), pid=dead_process())
        (path / "lease.json").write_bytes(leases._content(holder))
        assert remove_abandoned(planned.folder, step) == 1 and not path.exists()
    assert list(planned.folder.results(step.name).glob(".*")) == []
