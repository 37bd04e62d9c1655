"""COLMAP's child process: a locked database, a killed child, a killed parent."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from lgbatch.errors import ReconstructionError
from lgbatch.reconstruction import subprocess_worker
from lgbatch.reconstruction.progress import Progress
from tests.helpers.synthetic import synthetic
from tests.reconstruction.helpers import fill, run

LOCK = """
import sqlite3, sys
lock = sqlite3.connect(sys.argv[1], isolation_level=None)
lock.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


def test_a_database_locked_during_verification_is_reported_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = fill(tmp_path, synthetic(tmp_path, 24))
    command = [sys.executable, "-c", LOCK, str(database)]
    original, lockers = Progress.__call__, []

    def lock(progress: Progress, message: dict[str, str] | None) -> None:
        original(progress, message)
        if message is None and not lockers:  # tenths of a second after verification began
            lockers.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            lockers[0].stdout.readline()

    monkeypatch.setattr(Progress, "__call__", lock)
    try:
        with pytest.raises(ReconstructionError, match=r"COLMAP failed: .*close other programs"):
            run(tmp_path)
    finally:
        lockers[0].communicate()
    assert run(tmp_path).models[0].registered_images == 24


def test_a_killed_child_is_reported_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, synthetic(tmp_path, 4))
    original, start = Progress.__call__, subprocess_worker._start
    started = []
    monkeypatch.setattr(subprocess_worker, "_start", lambda name: started.append(start(name)) or started[-1])

    def kill(progress: Progress, message: dict[str, str] | None) -> None:
        original(progress, message)
        if len(started) == 1:
            started[0].kill()

    monkeypatch.setattr(Progress, "__call__", kill)
    with pytest.raises(ReconstructionError, match=r"killed by SIGKILL; memory may have run out"):
        run(tmp_path)
    assert not (tmp_path / "sparse.partial").exists()
    assert run(tmp_path).models[0].registered_images == 4


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_child_exits_when_its_parent_is_killed(tmp_path: Path) -> None:
    fill(tmp_path, synthetic(tmp_path, 60))
    code = "import sys; from pathlib import Path; from lgbatch.reconstruction.reconstruct import reconstruct\n"
    code += "folder = Path(sys.argv[1])\n"
    code += "reconstruct(folder / 'database.db', folder / 'images', folder / 'sparse')"
    with subprocess.Popen([sys.executable, "-c", code, tmp_path]) as parent:
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
        deadline = time.monotonic() + 60
        while not (tmp_path / "sparse.partial").exists() or not children.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        child = children.read_text().split()[0]
        time.sleep(0.3)
        assert b"lgbatch.reconstruction.colmap_worker" in Path(f"/proc/{child}/cmdline").read_bytes()
        parent.kill()
    deadline = time.monotonic() + 2
    command = Path(f"/proc/{child}/cmdline")
    while command.exists() and command.read_bytes():  # a zombie has an empty command line
        assert time.monotonic() < deadline
        time.sleep(0.01)
