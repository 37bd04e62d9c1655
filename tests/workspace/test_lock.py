import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lgbatch.errors import WorkspaceError
from lgbatch.workspace import lock
from lgbatch.workspace.lock import locked
from tests.helpers import slow_cli

HOLD = (
    "import sys; from pathlib import Path; from lgbatch.workspace.lock import locked\n"
    "sys.argv[:] = ['/usr/bin/lgbatch', 'run', 'my photos', '-o', 'out']\n"
    "with locked(Path(%r)): print('held', flush=True); sys.stdin.read()"
)


def hold(folder: Path) -> "subprocess.Popen[str]":
    pipe = subprocess.PIPE
    other = subprocess.Popen([sys.executable, "-c", HOLD % str(folder)], stdin=pipe, stdout=pipe, text=True)
    assert other.stdout is not None and other.stdout.readline() == "held\n"
    return other


def refused(folder: Path) -> str:
    with pytest.raises(WorkspaceError) as error, locked(folder):
        pass
    return str(error.value)


def test_the_second_is_told_who_holds_it_since_when(tmp_path: Path) -> None:
    with hold(tmp_path) as other:
        line = refused(tmp_path)
        assert re.fullmatch(
            rf"{re.escape(str(tmp_path))}/ is in use by `lgbatch run` \(process {other.pid} on "
            rf"{re.escape(socket.gethostname())}, since \d\d:\d\d\): wait for it, or use another --workspace",
            line,
        )
        other.communicate()
    with locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_command_line_leaves_with_status_2(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lgbatch"]
    with hold(tmp_path) as other:
        for arguments in ["pairs", "-w"], ["match", "-w"], ["reconstruct", "-w"]:
            done = subprocess.run([*command, *arguments, str(tmp_path)], capture_output=True, text=True)
            assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
            assert "is in use by `lgbatch run`" in done.stderr
        reading = subprocess.run([*command, "errors", "-w", str(tmp_path)], capture_output=True, text=True)
        assert (reading.returncode, reading.stderr) == (0, "")
        other.communicate()


def test_a_killed_holder_is_no_obstacle(tmp_path: Path) -> None:
    with hold(tmp_path) as other:
        other.kill()
        other.wait()
        assert (tmp_path / lock.NAME).exists()
        with locked(tmp_path):
            assert json.loads((tmp_path / lock.NAME).read_bytes())["pid"] == os.getpid()
    assert not (tmp_path / lock.NAME).exists()


def test_one_process_may_lock_it_again(tmp_path: Path) -> None:
    with locked(tmp_path), locked(tmp_path / "." / "x" / ".."):
        pass
    assert not (tmp_path / lock.NAME).exists()


@pytest.mark.parametrize("content", [b"", b"\xff", b"[1]", b'{"pid": "x", "start": null}', b'{"pid": 1e99}'])
def test_whatever_lies_there_does_no_harm(tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    for without in False, True:
        if without:
            without_locks(monkeypatch)
        (tmp_path / lock.NAME).write_bytes(content)
        with locked(tmp_path):
            pass


def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(file: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(lock, "_lock", fail)


def test_where_nothing_can_be_locked_the_process_is_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_locks(monkeypatch)
    with hold(tmp_path) as other:
        assert f"process {other.pid}" in refused(tmp_path)
        other.kill()
        other.wait()
    with locked(tmp_path):
        pass
    away = {"pid": other.pid, "host": "elsewhere", "command": "lgbatch match", "start": time.time() - 5 * 86400}
    (tmp_path / lock.NAME).write_text(json.dumps(away))
    line = refused(tmp_path)
    assert re.search(r"`lgbatch match` \(process \d+ on elsewhere, since \d{4}-\d\d-\d\d \d\d:\d\d\)", line)
    assert f"if that process is long gone, delete {tmp_path / lock.NAME}" in line


def test_many_at_once_are_one_at_a_time(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path\n"
        "from lgbatch.workspace.lock import locked; from lgbatch.errors import *\n"
        "folder = Path(sys.argv[1]); inside = folder / 'inside'; end = time.time() + 3; times = 0\n"
        "while time.time() < end:\n"
        "    try:\n"
        "        with locked(folder):\n"
        "            inside.mkdir(); inside.rmdir(); times += 1\n"
        "    except WorkspaceError: pass\n"
        "print(times)"
    )
    run = [sys.executable, "-c", script, str(tmp_path)]
    pipe = subprocess.PIPE
    others = [subprocess.Popen(run, stdout=pipe, stderr=pipe, text=True) for _ in range(4)]
    told = [other.communicate() for other in others]
    assert [error for _, error in told] == [""] * 4
    assert sum(int(times) for times, _ in told) > 20


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "cannot write in" in refused(tmp_path)


def test_no_folder_is_nothing_to_hold_unless_it_is_made(tmp_path: Path) -> None:
    with locked(tmp_path / "gone"):
        assert not (tmp_path / "gone").exists()
    with locked(tmp_path / "new" / "deep", make=True):
        assert (tmp_path / "new" / "deep" / lock.NAME).is_file()
    (tmp_path / "file").touch()
    with pytest.raises(WorkspaceError, match="cannot make the folder"), locked(tmp_path / "file" / "x", make=True):
        pass


def test_kill_9_then_run_again(tmp_path: Path) -> None:
    import cv2
    import numpy as np

    (tmp_path / "photos").mkdir()
    for i in range(20):
        cv2.imwrite(str(tmp_path / "photos" / f"{i:02}.png"), np.zeros((48, 64, 3), np.uint8))
    slow = slow_cli.COMMAND
    arguments = ["extract", str(tmp_path / "photos"), "-w", str(tmp_path / "out")]
    with subprocess.Popen([*slow, "0.3", *arguments], stderr=subprocess.DEVNULL) as first:
        deadline = time.time() + 30
        while not (tmp_path / "out" / "features.h5").exists() and time.time() < deadline:
            time.sleep(0.05)
        second = subprocess.run([*slow, "0", *arguments], capture_output=True, text=True)
        assert second.returncode == 2 and "is in use by `lgbatch extract`" in second.stderr
        first.send_signal(signal.SIGKILL)
    assert subprocess.run([*slow, "0", *arguments], capture_output=True).returncode == 0
