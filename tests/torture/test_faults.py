"""Each call that changes a file fails in turn, or the process is killed in it: one clear line, and nothing is lost."""

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.torture.harness import budget, contents, scene
from tests.torture.harness.faults import COMMIT_EACH_ITEM, COUNT, DEATHS, ERRORS, TORN
from tests.torture.harness.process import Done, Server


@dataclass
class Call:
    """A call that changes a file, from the log of faults.c."""

    number: int
    kind: str
    bytes: int
    path: str

    def __str__(self) -> str:
        return f"call {self.number}, {self.kind} of {Path(self.path).name}"


@dataclass
class Bench:
    """Runs a command with faults, and compares its workspace with that of an uninterrupted run."""

    server: Server
    arguments: tuple[str | Path, ...]
    folder: Path
    log: Path
    calls: list[Call] = field(default_factory=list)
    """Calls of an uninterrupted run."""
    complete: contents.Workspace = field(default_factory=contents.Workspace)
    """Workspace of an uninterrupted run."""

    def run(self, mode: int, at: int = 0, reason: int = 0) -> tuple[Done, contents.Workspace]:
        """Run in a new workspace with a fault; returns how the run ended, and the workspace that it left."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.log.unlink(missing_ok=True)
        fault = (str(self.folder), str(self.log), mode, at, reason)
        done = self.server.run(*self.arguments, preamble=COMMIT_EACH_ITEM, fault=fault)
        return done, contents.read(self.folder)

    def problems(self, workspace: contents.Workspace) -> Iterator[str]:
        """Check a workspace after a fault: files must be readable or restorable from a journal, and items intact."""
        journals = [self.folder / f"{problem.partition(':')[0]}.journal" for problem in workspace.problems]
        if not all(journal.exists() for journal in journals):
            yield f"left {workspace.problems}"
        if corrupt := self.corrupt(workspace):
            yield f"left {corrupt} corrupt"

    def problems_of_the_next_run(self) -> Iterator[str]:
        """Run again without a fault, and compare the finished workspace."""
        again = self.server.run(*self.arguments)
        if again.problem() or again.status != 0:
            yield f"the next run {again.problem()}: {again.err or again.out}"
        elif differences := contents.differences(contents.read(self.folder), self.complete):
            yield f"after the next run {differences}"

    def corrupt(self, workspace: contents.Workspace) -> list[str]:
        items = self.complete.items
        return [name for name, item in workspace.items.items() if not contents.equal(item, items[name])]


@dataclass
class Tally:
    """What a test did, and what went wrong."""

    runs: int = 0
    checked: int = 0
    lost: int = 0
    corrupt: int = 0
    unreadable: int = 0
    """Workspaces with a file that plain h5py cannot open until the next run has restored it."""
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def add(self, bench: Bench, done: Done, workspace: contents.Workspace) -> None:
        self.runs += 1
        self.statuses[done.status] += 1
        self.checked += len(workspace.items)
        self.corrupt += len(bench.corrupt(workspace))
        self.unreadable += bool(workspace.problems)

    def assert_clean(self) -> None:
        for line in self.wrong:
            budget.report(f"  {line}")
        assert not self.wrong, f"{len(self.wrong)} wrong\n" + "\n".join(self.wrong)


@pytest.fixture(scope="module")
def bench(faulty_server: Server, stand_ins: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("faults")
    scene.render(folder / "photos", 3)
    arguments = ("run", folder / "photos", "-o", folder / "out", "--models", stand_ins, "--threads", "1")
    bench = Bench(faulty_server, arguments, folder / "out", folder / "log")
    done, bench.complete = bench.run(COUNT)
    assert done.status == 0 and not bench.complete.problems, done.err
    assert len(bench.complete.features) == len(bench.complete.matches) == 3
    assert bench.complete.rows["two_view_geometries"]
    for line in bench.log.read_text().splitlines():
        number, kind, size, path = line.split("\t")
        bench.calls.append(Call(int(number), kind, int(size), path))
    return bench


def test_a_failing_call_ends_in_one_line_and_the_next_run_finishes(bench: Bench) -> None:
    tally = Tally()
    for turn, call in enumerate(bench.calls[:: budget.FAULTS]):
        names = list(ERRORS) if budget.ALL_ERRORS else [list(ERRORS)[turn % len(ERRORS)]]
        for name in names:
            mode, reason = ERRORS[name]
            done, workspace = bench.run(mode, call.number, reason)
            tally.add(bench, done, workspace)
            problems = [problem] if (problem := done.problem()) else []
            if done.status == 0 and (differences := contents.differences(workspace, bench.complete)):
                problems.append(f"ended with status 0, but {differences}")
            problems += [*bench.problems(workspace), *bench.problems_of_the_next_run()]
            if problems:
                tally.wrong.append(f"{name} at {call}: {'; '.join(problems)}: {shortened(done.err)}")
    budget.report(
        f"faults: {tally.runs} failing calls of {len(bench.calls)}, exit statuses {dict(tally.statuses)}, "
        f"items checked {tally.checked}, corrupt {tally.corrupt}"
    )
    tally.assert_clean()


def test_a_kill_in_a_call_loses_no_committed_item(bench: Bench) -> None:
    tally = Tally()
    for name, mode in DEATHS.items():
        committed: set[str] = set()
        for call in bench.calls[:: budget.FAULTS]:
            if mode == TORN and call.bytes < 2:
                continue  # too short to write half of it
            done, workspace = bench.run(mode, call.number)
            tally.add(bench, done, workspace)
            problems = [] if done.status == -9 else [f"was not killed, but ended with {done.status}"]
            if not workspace.problems:
                # With one thread all runs are alike: this run had committed what a run killed earlier had.
                lost = committed - workspace.items.keys()
                tally.lost += len(lost)
                problems += [f"lost {sorted(lost)}"] if lost else []
                committed = set(workspace.items)
            problems += [*bench.problems(workspace), *bench.problems_of_the_next_run()]
            if problems:
                tally.wrong.append(f"{name}, {call}: {'; '.join(problems)}")
    budget.report(
        f"kills in a call: {tally.runs}, items checked {tally.checked}, lost {tally.lost}, corrupt {tally.corrupt}; "
        f"unreadable to plain h5py until the next run {tally.unreadable}"
    )
    tally.assert_clean()


def shortened(text: str) -> str:
    return " | ".join(text.strip().splitlines()[:3])[:200]
