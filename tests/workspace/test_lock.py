import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
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

COMPETE = (
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


def hold(folder: Path) -> "subprocess.Popen[str]":
    pipe = subprocess.PIPE
    holder = subprocess.Popen([sys.executable, "-c", HOLD % str(folder)], stdin=pipe, stdout=pipe, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    return holder


def refusal(folder: Path) -> str:
    with pytest.raises(WorkspaceError) as error, locked(folder):
        pass
    return str(error.value)


def test_a_second_process_is_refused_with_a_message_that_names_the_holder(tmp_path: Path) -> None:
    with hold(tmp_path) as holder:
        message = refusal(tmp_path)
        assert re.fullmatch(
            rf"{re.escape(str(tmp_path))}/ is in use by `lgbatch run` \(process {holder.pid} on "
            rf"{re.escape(socket.gethostname())}, since \d\d:\d\d\): wait for it, or use another workspace",
            message,
        )
        holder.communicate()
    with locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_writing_commands_exit_with_status_2_while_the_workspace_is_locked(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lgbatch"]
    with hold(tmp_path) as holder:
        for arguments in ["pairs", "-w"], ["match", "-w"], ["reconstruct", "-w"]:
            result = subprocess.run([*command, *arguments, str(tmp_path)], capture_output=True, text=True)
            assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1), result.stderr
            assert "is in use by `lgbatch run`" in result.stderr
        reading = subprocess.run([*command, "errors", "-w", str(tmp_path)], capture_output=True, text=True)
        assert (reading.returncode, reading.stderr) == (0, "")
        holder.communicate()


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    with hold(tmp_path) as holder:
        holder.kill()
        holder.wait()
        assert (tmp_path / lock.NAME).exists()
        with locked(tmp_path):
            assert json.loads((tmp_path / lock.NAME).read_bytes())["pid"] == os.getpid()
    assert not (tmp_path / lock.NAME).exists()


def test_the_lock_is_reentrant_within_a_process(tmp_path: Path) -> None:
    with locked(tmp_path), locked(tmp_path / "." / "x" / ".."):
        pass
    assert not (tmp_path / lock.NAME).exists()


@pytest.mark.parametrize("content", [b"", b"\xff", b"[1]", b'{"pid": "x", "start": null}', b'{"pid": 1e99}'])
def test_an_invalid_lock_file_is_ignored(tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    for file_locks_disabled in False, True:
        if file_locks_disabled:
            disable_file_locks(monkeypatch)
        (tmp_path / lock.NAME).write_bytes(content)
        with locked(tmp_path):
            pass


def disable_file_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(file: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(lock, "_lock", fail)


def test_without_file_locks_the_holder_is_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disable_file_locks(monkeypatch)
    with hold(tmp_path) as holder:
        assert f"process {holder.pid}" in refusal(tmp_path)
        holder.kill()
        holder.wait()
    with locked(tmp_path):
        pass
    start = time.time() - 5 * 86400
    remote_holder = {"pid": holder.pid, "host": "elsewhere", "command": "lgbatch match", "start": start}
    (tmp_path / lock.NAME).write_text(json.dumps(remote_holder))
    message = refusal(tmp_path)
    assert re.search(r"`lgbatch match` \(process \d+ on elsewhere, since \d{4}-\d\d-\d\d \d\d:\d\d\)", message)
    assert f"if that process has ended, delete {tmp_path / lock.NAME}" in message


def test_concurrent_processes_never_hold_the_lock_together(tmp_path: Path) -> None:
    command = [sys.executable, "-c", COMPETE, str(tmp_path)]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) for _ in range(4)]
    outputs = [process.communicate() for process in processes]
    assert [error for _, error in outputs] == [""] * 4
    assert sum(int(times) for times, _ in outputs) > 20


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_raises_workspace_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "cannot write to" in refusal(tmp_path)


def test_a_missing_folder_is_not_locked_unless_created(tmp_path: Path) -> None:
    with locked(tmp_path / "gone"):
        assert not (tmp_path / "gone").exists()
    with locked(tmp_path / "new" / "deep", create=True):
        assert (tmp_path / "new" / "deep" / lock.NAME).is_file()
    (tmp_path / "file").touch()
    with pytest.raises(WorkspaceError, match="cannot create the folder"), locked(tmp_path / "file" / "x", create=True):
        pass


def test_a_run_continues_after_kill_9(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("locks", [True, False], ids=["locks", "no locks"])
def test_another_thread_of_the_process_is_refused_or_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locks: bool
) -> None:
    def no_locks(file: object) -> None:
        raise OSError("no locks")

    if not locks:  # as some network file systems
        monkeypatch.setattr(lock, "_lock", no_locks)
    waited: list[str] = []

    def wait() -> None:
        with locked(tmp_path, waiting=waited.append):
            pass

    with ThreadPoolExecutor(1) as pool:
        with locked(tmp_path), locked(tmp_path):
            message = pool.submit(refusal, tmp_path).result()
            waiting = pool.submit(wait)
            while not waited:
                time.sleep(0.01)
        waiting.result()
    assert message.startswith(f"{tmp_path}/ is in use by another thread of this process: wait for it")
    assert len(waited) == 1 and not list(tmp_path.iterdir())
