"""Each call that changes a file fails in turn, or the process dies in it: one clear line, and nothing lost."""

import errno
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.torture import contents, figures, scene
from tests.torture.process import Server

# Commits after each item, so that every step of a commit is met.
COMMITS = """
import lgbatch.workspace.stage
assert lgbatch.workspace.stage.COMMIT_SECONDS
lgbatch.workspace.stage.COMMIT_SECONDS = -1
"""
COUNT, ONCE, ALWAYS, KILL, TORN, MOVE = range(6)  # as in faults.c
ERRORS = {
    "no space left": (ALWAYS, errno.ENOSPC),
    "quota exceeded": (ALWAYS, errno.EDQUOT),
    "input/output error, once": (ONCE, errno.EIO),
    "input/output errors": (ALWAYS, errno.EIO),
    "permission denied": (ONCE, errno.EACCES),
    "not permitted": (ALWAYS, errno.EPERM),
    "read-only from now on": (ALWAYS, errno.EROFS),
}
DEATHS = {"killed before it": (KILL, 0), "killed half-way through it": (TORN, 0)}


@dataclass
class Bench:
    """Where faults are tried, and what an uninterrupted run does there."""

    server: Server
    arguments: tuple[str | Path, ...]
    folder: Path
    log: Path
    calls: list[list[str]] = field(default_factory=list)
    """Number, kind, bytes and file of every call that changes a file."""
    whole: contents.Workspace = field(default_factory=contents.Workspace)

    def run(self, mode: int, at: int = 0, reason: int = 0) -> contents.Workspace:
        """One faulty run in a new workspace, and what it left; what it did wrong is raised as an AssertionError."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.log.unlink(missing_ok=True)
        self.done = self.server.run(
            *self.arguments, first=COMMITS, fault=(str(self.folder), str(self.log), mode, at, reason)
        )
        return contents.read(self.folder)

    def go_on(self) -> None:
        """The same without a fault, to its end."""
        again = self.server.run(*self.arguments)
        assert again.problem() is None and again.status == 0, (
            f"the next run {again.problem()}: {again.err or again.out}"
        )
        different = contents.differences(contents.read(self.folder), self.whole)
        assert not different, f"after the next run {different}"

    def corrupt(self, left: contents.Workspace) -> list[str]:
        return [name for name, item in left.items.items() if not contents.equal(item, self.whole.items[name])]


@pytest.fixture(scope="module")
def bench(failing: Server, standins: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("faults")
    scene.render(folder / "photos", 3)
    arguments = ("run", folder / "photos", "-o", folder / "out", "--models", standins, "--threads", "1")
    bench = Bench(failing, arguments, folder / "out", folder / "log")
    bench.whole = bench.run(COUNT)
    assert bench.done.status == 0 and not bench.whole.problems, bench.done.err
    assert len(bench.whole.features) == len(bench.whole.matches) == 3 and bench.whole.rows["two_view_geometries"]
    bench.calls = [line.split("\t") for line in bench.log.read_text().splitlines()]
    return bench


def where(call: list[str]) -> str:
    return f"{call[1]} of {Path(call[3]).name}"


def report(what: str, wrong: list[str]) -> None:
    for line in wrong:
        figures.tell(f"  {line}")
    assert not wrong, f"{what}: {len(wrong)} wrong\n" + "\n".join(wrong)


def test_a_call_that_fails_ends_in_one_line_and_the_next_run_goes_on(bench: Bench) -> None:
    wrong, statuses, checked, corrupt = [], Counter[int](), 0, 0
    for number, call in enumerate(bench.calls[:: figures.FAULTS]):
        names = list(ERRORS) if figures.ALL_ERRORS else [list(ERRORS)[number % len(ERRORS)]]
        for name in names:
            left = bench.run(ERRORS[name][0], int(call[0]), ERRORS[name][1])
            statuses[bench.done.status] += 1
            checked += len(left.items)
            problem = bench.done.problem()
            if not problem and bench.done.status == 0 and (different := contents.differences(left, bench.whole)):
                problem = f"ended with status 0, but {different}"
            if not problem and left.problems and not damaged_until_the_next_run(bench, left):
                problem = f"left {left.problems}"
            if not problem and (bad := bench.corrupt(left)):
                problem, corrupt = f"left {bad} corrupt", corrupt + len(bad)
            try:
                bench.go_on()
            except AssertionError as error:
                problem = f"{problem}; {error}" if problem else str(error)
            if problem:
                wrong.append(f"{name} at call {call[0]}, {where(call)}: {problem}: {shown(bench.done.err)}")
    figures.tell(
        f"faults: {sum(statuses.values())} failing calls of {len(bench.calls)}, exit statuses {dict(statuses)}, "
        f"items checked {checked}, corrupt {corrupt}"
    )
    report("faults", wrong)


def damaged_until_the_next_run(bench: Bench, left: contents.Workspace) -> bool:
    """Whether what cannot be read has a journal beside it, from which the next run restores it."""
    return all(bench.folder.joinpath(f"{problem.partition(':')[0]}.journal").exists() for problem in left.problems)


def test_killed_in_a_call_nothing_committed_is_lost(bench: Bench) -> None:
    wrong, checked, lost, corrupt, unreadable, runs = [], 0, 0, 0, 0, 0
    for name, (mode, _) in DEATHS.items():
        before: set[str] = set()
        for call in bench.calls[:: figures.FAULTS]:
            if mode == TORN and int(call[2]) < 2:
                continue  # there is no half of it
            left = bench.run(mode, int(call[0]))
            runs += 1
            if bench.done.status != -9:
                wrong.append(f"{name} {call[0]}, {where(call)}: was not killed, but ended with {bench.done.status}")
            now = set(left.items)
            checked += len(now)
            problem = ""
            if left.problems:
                unreadable += 1
                if not damaged_until_the_next_run(bench, left):
                    problem = f"left {left.problems}"
            else:
                # Threads aside, all runs are alike: what one that died earlier had committed, this one had too.
                lost += len(before - now)
                problem = f"lost {sorted(before - now)}" if before - now else ""
                before = now
            if bad := bench.corrupt(left):
                problem, corrupt = f"left {bad} corrupt", corrupt + len(bad)
            try:
                bench.go_on()
            except AssertionError as error:
                problem = f"{problem}; {error}"
            if problem:
                wrong.append(f"{name} {call[0]}, {where(call)}: {problem}")
    figures.tell(
        f"kills in a call: {runs}, items checked {checked}, lost {lost}, corrupt {corrupt}; "
        f"unreadable to plain h5py until the next run {unreadable}"
    )
    report("kills in a call", wrong)


def shown(text: str) -> str:
    return " | ".join(text.strip().splitlines()[:3])[:200]
