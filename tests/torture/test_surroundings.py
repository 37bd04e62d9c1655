"""Runs in a hostile environment: the clock jumps, the workspace vanishes, the disk is full."""

import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from _pytest.mark.structures import ParameterSet

from tests.torture.harness import budget, contents
from tests.torture.harness.faults import COMMIT_EACH_ITEM, COUNT, MOVE
from tests.torture.harness.process import Server

_CLOCKS = {  # the time, from the real time and the number of the call
    "backwards": "lambda now, n: now - 1e6 * n",
    "to 1970": "lambda now, n: 0.0 if n > 3 else now",
    "to 2100": "lambda now, n: now + 4e9 * (n > 3)",
    "to and fro": "lambda now, n: now + (-1) ** n * 1e5",
}
_JUMPING_CLOCK = """
import time
def jumping(real, change={change}):
    calls = [0]
    def clock():
        calls[0] += 1
        return change(real(), calls[0])
    return clock
time.time = jumping(time.time)
"""


@pytest.fixture(scope="module")
def complete(
    server: Server, stand_ins: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> contents.Workspace:
    """The workspace of an undisturbed run."""
    out = tmp_path_factory.mktemp("complete") / "out"
    assert server.run("run", photos, "-o", out, "--models", stand_ins).status == 0
    return contents.read(out)


def parameters(values: Iterable[object], *short: object) -> list[ParameterSet]:
    """Parameters, all but those of the `short` suite marked as slow."""
    return [pytest.param(value, marks=() if value in short else pytest.mark.slow) for value in values]


@pytest.mark.parametrize("jump", parameters(_CLOCKS, "to and fro"))
def test_a_jumping_clock_changes_nothing(
    jump: str, tmp_path: Path, server: Server, stand_ins: Path, photos: Path, complete: contents.Workspace
) -> None:
    preamble = _JUMPING_CLOCK.format(change=_CLOCKS[jump])
    for _ in range(2):
        done = server.run("run", photos, "-o", tmp_path / "out", "--models", stand_ins, preamble=preamble)
        assert done.problem() is None and done.status == 0, done.err
        assert not contents.differences(contents.read(tmp_path / "out"), complete)


VANISHED = {
    "extraction": "features.h5",
    "matching": "matches.h5",
    "import": "database.db.partial-wal",
    "verification": "database.db-wal",
    "mapping": "images.bin",
}
"""Stage, and the file that it writes when the workspace vanishes."""


@pytest.mark.parametrize("stage", parameters(VANISHED, "matching", "verification"))
def test_a_vanished_workspace_ends_in_one_line(
    stage: str, tmp_path: Path, faulty_server: Server, stand_ins: Path, photos: Path, complete: contents.Workspace
) -> None:
    out, moved, log = tmp_path / "out", tmp_path / "out moved", tmp_path / "log"
    command = ("run", photos, "-o", out, "--models", stand_ins, "--threads", "1")
    faulty_server.run(*command, preamble=COMMIT_EACH_ITEM, fault=(str(out), str(log), COUNT, 0, 0))
    calls = [line.split("\t")[0] for line in log.read_text().splitlines() if Path(line).name == VANISHED[stage]]
    shutil.rmtree(out)
    done = faulty_server.run(
        *command, preamble=COMMIT_EACH_ITEM, fault=(str(out), str(log), MOVE, int(calls[len(calls) // 2]), 0)
    )
    assert moved.is_dir(), "the workspace was not moved"
    assert done.problem() is None and done.status == 2, (done.status, done.err)
    workspace = contents.read(moved)
    assert not workspace.problems
    assert all(contents.equal(item, complete.items[name]) for name, item in workspace.items.items())
    shutil.rmtree(out, ignore_errors=True)
    moved.rename(out)
    done = faulty_server.run(*command)
    assert done.problem() is None and done.status == 0, done.err
    assert not contents.differences(contents.read(out), complete)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """The folder of a mounted disk of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("cannot mount a small disk here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("free_kb", parameters((4, 40, 70, 100, 130, 170, 240, 310, 400), 40, 170))
def test_a_full_disk_keeps_committed_items(
    free_kb: int, small_disk: Path, server: Server, stand_ins: Path, photos: Path, complete: contents.Workspace
) -> None:
    filler = small_disk / "filler"
    filler.write_bytes(bytes((4096 - free_kb) * 1024 - 4096))
    command = ("run", photos, "-o", small_disk / "out", "--models", stand_ins, "--threads", "1")
    done = server.run(*command, preamble=COMMIT_EACH_ITEM)
    workspace = contents.read(small_disk / "out")
    filler.unlink()
    assert not workspace.problems
    assert all(contents.equal(item, complete.items[name]) for name, item in workspace.items.items())
    again = server.run(*command)
    assert again.status == 0 and not contents.differences(contents.read(small_disk / "out"), complete), again.err
    budget.report(
        f"full disk: {free_kb} kB free: {len(workspace.items)} items kept, status {done.status}, then finished"
    )
    assert done.problem() is None, (done.problem(), done.err)
    assert done.status == 2, done.err
