"""One writing command at a time in a workspace: `.lgbatch.lock`, locked by the system and gone with its process.

Where the file system has no locks, the process that the file names is looked up instead.
"""

import contextlib
import json
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from lgbatch.errors import WorkspaceError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

NAME = ".lgbatch.lock"
_BYTE = 1 << 30  # Windows locks what it reads: a byte behind all content
_held: set[Path] = set()


@contextlib.contextmanager
def locked(folder: Path, *, make: bool = False) -> Iterator[None]:
    """Hold the workspace while the block runs, unless this process holds it already.

    Where there is no such folder it is made with `make`, and else nothing is held. Raises WorkspaceError, naming who
    holds the workspace since when, or when it cannot be written.
    """
    if make:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WorkspaceError(f"cannot make the folder {folder}: {error.strerror}") from None
    path = folder.resolve() / NAME
    if path in _held or not folder.is_dir():
        yield
        return
    file = _take(path, folder)
    _held.add(path)
    try:
        with contextlib.suppress(OSError):  # a full disk, say: it is locked all the same
            _write(file)
        yield
    finally:
        _held.remove(path)
        with contextlib.suppress(OSError):
            if sys.platform == "win32":  # which removes no open file
                file.close()
            path.unlink(missing_ok=True)
        file.close()


def _take(path: Path, folder: Path) -> BinaryIO:
    while True:
        try:
            file = path.open("a+b", buffering=0)
        except OSError as error:
            raise WorkspaceError(f"cannot write in {folder}: {error.strerror}; use another --workspace") from None
        try:
            _lock(file)
        except BlockingIOError:
            raise WorkspaceError(_in_use(folder, file)) from None
        except OSError:  # a file system without locks
            if _lives(_read(file)):
                raise WorkspaceError(f"{_in_use(folder, file)}; if that process is long gone, delete {path}") from None
        with contextlib.suppress(OSError):
            if os.fstat(file.fileno()).st_ino == path.stat().st_ino:
                return file
        file.close()  # its holder removed it in between


def _lock(file: BinaryIO) -> None:
    """Raises BlockingIOError while another process has it locked, another OSError where that cannot be known."""
    if sys.platform == "win32":
        file.seek(_BYTE)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except PermissionError:
            raise BlockingIOError from None
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _write(file: BinaryIO) -> None:
    program = Path(sys.argv[0])
    words = [program.parent.name if program.name == "__main__.py" else program.name, *sys.argv[1:]]
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "command": shlex.join(words), "start": time.time()}
    file.truncate(0)
    file.write(json.dumps(holder).encode())


def _read(file: BinaryIO) -> dict[str, object]:
    file.seek(0)
    try:
        holder = json.loads(file.read(1 << 16))
    except (OSError, ValueError):  # it is being written
        return {}
    return holder if isinstance(holder, dict) else {}


def _in_use(folder: Path, file: BinaryIO) -> str:
    holder = _read(file)
    file.close()
    way_out = "wait for it, or use another --workspace"
    start = holder.get("start")
    if not isinstance(start, float):
        return f"{folder}/ is in use by another lgbatch: {way_out}"
    then, now = time.localtime(start), time.localtime()
    since = time.strftime("%H:%M" if then[:3] == now[:3] else "%Y-%m-%d %H:%M", then)
    command = " ".join(str(holder.get("command")).split()[:2])
    return (
        f"{folder}/ is in use by `{command}` (process {holder.get('pid')} on {holder.get('host')}, since {since}): "
        f"{way_out}"
    )


def _lives(holder: dict[str, object]) -> bool:
    """Whether the process may still be there; on another host nobody can tell."""
    pid = holder.get("pid")
    if not isinstance(pid, int):
        return False
    if holder.get("host") != socket.gethostname():
        return True
    if sys.platform == "win32":  # where os.kill ends the process; and locks are always to be had
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return pid != os.getpid()
