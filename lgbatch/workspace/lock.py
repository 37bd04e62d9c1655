"""The lock of a folder: `.lgbatch.lock`, so that one command at a time writes to a workspace or makes models.

The operating system locks the file and releases it when the process ends. If the file system has no locks, as some
network file systems, the process that created the file holds the lock. The file names it, and counts as locked while
that process is alive.
"""

import contextlib
import json
import os
import shlex
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from lgbatch.errors import WorkspaceError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

NAME = ".lgbatch.lock"
_BYTE = 1 << 30  # On Windows a locked byte cannot be read: lock one beyond the content
_WRITE_SECONDS = 0.5
"""Time that a process gets to write its name into the file that it created, on a file system without locks."""
_TAKEOVER_SECONDS = 0.2
_POLL_SECONDS = 0.02
_WAIT_SECONDS = 0.2
"""Interval in which a waiting process tries again."""
_held: dict[Path, int] = {}
"""The locks that this process holds, with the threads that hold them."""
_acquiring = threading.Lock()


class _InUse(WorkspaceError):
    """Another process holds the lock."""

    def __init__(self, holder: str, hint: str = "") -> None:
        """`holder` tells the folder and the process, `hint` what to do if that process has ended."""
        super().__init__(f"{holder}: wait for it, or use another workspace{hint}")
        self.waiting = f"{holder}: waiting for it{hint}"


@contextlib.contextmanager
def locked(folder: Path, *, create: bool = False, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
    """Lock the folder while the block runs. A thread that holds the lock may enter again.

    If the folder does not exist, `create` creates it; otherwise nothing is locked. If another process or thread holds
    the lock and `waiting` is given, call it once with a line that names that process, and wait.

    Raises WorkspaceError if another one holds the lock and `waiting` is not given (the message names it), or if the
    folder cannot be created or written.
    """
    if folder.exists() and not folder.is_dir():
        raise WorkspaceError(f"{folder} is a file, not a folder: choose another one")
    if create:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WorkspaceError(f"cannot create the folder {folder}: {error.strerror}; choose another one") from None
    path = folder.resolve() / NAME
    if _held.get(path) == threading.get_ident() or not folder.is_dir():
        yield
        return
    file = _hold(path, folder) if waiting is None else _wait(path, folder, waiting)
    try:
        with contextlib.suppress(OSError):  # for example a full disk: the lock holds nevertheless
            _write_holder(file)
        yield
    finally:
        del _held[path]
        with contextlib.suppress(OSError):
            if sys.platform == "win32":  # an open file cannot be removed
                file.close()
            path.unlink(missing_ok=True)
        file.close()


def _wait(path: Path, folder: Path, waiting: Callable[[str], None]) -> BinaryIO:
    """Open and lock the file when no other process holds it. Raises WorkspaceError if it cannot be opened."""
    told = False
    while True:
        try:
            return _hold(path, folder)
        except _InUse as error:
            if not told:
                waiting(error.waiting)
            told = True
        time.sleep(_WAIT_SECONDS)


def _hold(path: Path, folder: Path) -> BinaryIO:
    """Open and lock the file for this thread. Raises _InUse if another thread or process holds the lock."""
    with _acquiring:
        if path in _held:
            raise _InUse(f"{folder}/ is in use by another thread of this process")
        file = _acquire(path, folder)
        _held[path] = threading.get_ident()
        return file


def _acquire(path: Path, folder: Path) -> BinaryIO:
    """Open and lock the file. Raises _InUse if another process holds it, WorkspaceError if it cannot be opened."""
    taken_over = False
    while True:
        file, created = _open(path, folder)
        try:
            _lock(file)
        except BlockingIOError:
            raise _InUse(_close_and_describe(folder, file)) from None
        except OSError:  # a file system without locks
            if not created:
                _refuse_unless_dead(path, folder, file)
                path.unlink(missing_ok=True)
                taken_over = True
                continue
            with contextlib.suppress(OSError):
                _write_holder(file)
            if taken_over:  # as perhaps another process, which would then have removed the file created here
                time.sleep(_TAKEOVER_SECONDS)
        with contextlib.suppress(OSError):
            if os.fstat(file.fileno()).st_ino == path.stat().st_ino:
                return file
        file.close()  # its holder removed it after it was opened here


def _open(path: Path, folder: Path) -> tuple[BinaryIO, bool]:
    """Open the file, and tell whether this call created it. Raises WorkspaceError."""
    try:
        try:
            return path.open("x+b", buffering=0), True
        except FileExistsError:
            return path.open("a+b", buffering=0), False
    except OSError as error:
        raise WorkspaceError(f"cannot write to {folder}: {error.strerror}; use another workspace") from None


def _refuse_unless_dead(path: Path, folder: Path, file: BinaryIO) -> None:
    """Close the file of a file system without locks. Raises _InUse if the process that it names may run."""
    deadline = time.monotonic() + _WRITE_SECONDS
    while not (holder := _read_holder(file)) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    if _may_be_alive(holder):
        raise _InUse(_close_and_describe(folder, file), f"; if that process has ended, delete {path}")
    file.close()


def _lock(file: BinaryIO) -> None:
    """Raises BlockingIOError if another process holds the lock, another OSError if the file system has no locks."""
    if sys.platform == "win32":
        file.seek(_BYTE)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except PermissionError:
            raise BlockingIOError from None
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _write_holder(file: BinaryIO) -> None:
    """Write this process, its host, command and start time (seconds since 1970) as JSON."""
    program = Path(sys.argv[0])
    words = [program.parent.name if program.name == "__main__.py" else program.name, *sys.argv[1:]]
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "command": shlex.join(words), "start": time.time()}
    file.seek(0)
    file.truncate()
    file.write(json.dumps(holder).encode())


def _read_holder(file: BinaryIO) -> dict[str, object]:
    """Read the holder as written by _write_holder; empty if it is unknown."""
    file.seek(0)
    try:
        holder = json.loads(file.read(1 << 16))
    except (OSError, ValueError):  # being written by its holder
        return {}
    return holder if isinstance(holder, dict) else {}


def _close_and_describe(folder: Path, file: BinaryIO) -> str:
    """Close the file and return words that name its holder."""
    holder = _read_holder(file)
    file.close()
    start = holder.get("start")
    if not isinstance(start, float):
        return f"{folder}/ is in use by another lgbatch"
    then, now = time.localtime(start), time.localtime()
    since = time.strftime("%H:%M" if then[:3] == now[:3] else "%Y-%m-%d %H:%M", then)
    command = " ".join(str(holder.get("command")).split()[:2])
    return f"{folder}/ is in use by `{command}` (process {holder.get('pid')} on {holder.get('host')}, since {since})"


def _may_be_alive(holder: dict[str, object]) -> bool:
    """Whether the holder may still run. A process on another host always may."""
    pid = holder.get("pid")
    if not isinstance(pid, int):
        return False
    if holder.get("host") != socket.gethostname():
        return True
    if sys.platform == "win32":  # os.kill would end the process, and locks are always available
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return pid != os.getpid()
