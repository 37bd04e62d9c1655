"""What happens around a run: clocks jump, folders vanish, disks are full."""

import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from _pytest.mark.structures import ParameterSet

from tests.torture import contents, figures
from tests.torture.process import Server
from tests.torture.test_faults import COMMITS, COUNT, MOVE

_CLOCKS = {
    "backwards": "lambda now, n: now - 1e6 * n",
    "to 1970": "lambda now, n: 0.0 if n > 3 else now",
    "to 2100": "lambda now, n: now + 4e9 * (n > 3)",
    "to and fro": "lambda now, n: now + (-1) ** n * 1e5",
}
_JUMP = """
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
def whole(server: Server, standins: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> contents.Workspace:
    """What an undisturbed run leaves."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert server.run("run", photos, "-o", out, "--models", standins).status == 0
    return contents.read(out)


def some(of: Iterable[object], *short: object) -> list[ParameterSet]:
    """All as parameters, those beyond the short ones marked slow."""
    return [pytest.param(value, marks=() if value in short else pytest.mark.slow) for value in of]


@pytest.mark.parametrize("jump", some(_CLOCKS, "to and fro"))
def test_a_clock_that_jumps_changes_nothing(
    jump: str, tmp_path: Path, server: Server, standins: Path, photos: Path, whole: contents.Workspace
) -> None:
    first = _JUMP.format(change=_CLOCKS[jump])
    for _ in range(2):
        done = server.run("run", photos, "-o", tmp_path / "out", "--models", standins, first=first)
        assert done.problem() is None and done.status == 0, done.err
        assert not contents.differences(contents.read(tmp_path / "out"), whole)


VANISHED = {
    "extraction": "features.h5",
    "matching": "matches.h5",
    "import": "database.db.partial-wal",
    "verification": "database.db-wal",
    "mapping": "images.bin",
}
"""Stage, and the file that it writes to when the folder goes away."""


@pytest.mark.parametrize("stage", some(VANISHED, "matching", "verification"))
def test_a_workspace_that_vanishes_ends_in_one_line(
    stage: str, tmp_path: Path, failing: Server, standins: Path, photos: Path, whole: contents.Workspace
) -> None:
    out, moved, log = tmp_path / "out", tmp_path / "out moved", tmp_path / "log"
    command = ("run", photos, "-o", out, "--models", standins, "--threads", "1")
    failing.run(*command, first=COMMITS, fault=(str(out), str(log), COUNT, 0, 0))
    calls = [line.split("\t")[0] for line in log.read_text().splitlines() if Path(line).name == VANISHED[stage]]
    shutil.rmtree(out)
    done = failing.run(*command, first=COMMITS, fault=(str(out), str(log), MOVE, int(calls[len(calls) // 2]), 0))
    assert moved.is_dir(), "it was not moved"
    assert done.problem() is None and done.status == 2, (done.status, done.err)
    left = contents.read(moved)
    assert not left.problems
    assert all(contents.equal(item, whole.items[name]) for name, item in left.items.items())
    shutil.rmtree(out, ignore_errors=True)
    moved.rename(out)
    done = failing.run(*command)
    assert done.problem() is None and done.status == 0, done.err
    assert not contents.differences(contents.read(out), whole)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB, nearly all of it taken."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("cannot mount a small disk here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("free", some((4, 40, 70, 100, 130, 170, 240, 310, 400), 40, 170))
def test_a_disk_that_is_really_full(
    free: int, small_disk: Path, server: Server, standins: Path, photos: Path, whole: contents.Workspace
) -> None:
    filler = small_disk / "filler"
    filler.write_bytes(bytes((4096 - free) * 1024 - 4096))
    command = ("run", photos, "-o", small_disk / "out", "--models", standins, "--threads", "1")
    done = server.run(*command, first=COMMITS)
    left = contents.read(small_disk / "out")
    filler.unlink()
    assert not left.problems
    assert all(contents.equal(item, whole.items[name]) for name, item in left.items.items())
    again = server.run(*command)
    assert again.status == 0 and not contents.differences(contents.read(small_disk / "out"), whole), again.err
    figures.tell(f"full disk: {free} kB free: {len(left.items)} items kept, status {done.status}, then finished")
    assert done.problem() is None, (done.problem(), done.err)
    assert done.status == 2, done.err
