"""Leases: who works on a unit. They save double work, and show what is being done; results do not depend on them.

A lease is renewed by writing its file. Its age is told by the clock of the file system: those of machines may differ.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path

from lgbatch.errors import WorkspaceError

LEASE_SECONDS = 120.0
"""A lease that is not renewed for so long has expired."""
_RENEW_SECONDS = 30.0


@dataclass(frozen=True)
class Holder:
    """Who holds a lease."""

    host: str
    pid: int
    token: str
    machine: str
    """The host, since its last start, and the container: hosts and processes of several may have the same name."""
    renewed: float = field(default=0.0, compare=False)
    """When the lease was written, by the clock of the file system, in seconds since 1970."""

    @classmethod
    def new(cls) -> "Holder":
        """The present process."""
        return cls(socket.gethostname(), os.getpid(), uuid.uuid4().hex[:12], _machine())

    def is_alive(self, now: float) -> bool:
        """Whether the lease holds at a time of the file system. A process of this machine that has ended holds none."""
        return self.renewed + LEASE_SECONDS > now and (self.machine != _machine() or _is_running(self.pid))


def file_time(folder: Path) -> float:
    """Return the time by the clock of the file system, such as that of an NFS server; ours if it cannot be written."""
    path = folder / f".{uuid.uuid4().hex}.time"
    try:
        path.touch()
        return path.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        with suppress(OSError):
            path.unlink()


def read_holder(path: Path) -> Holder | None:
    """Return who holds a lease; None if there is none. One that is being written counts as held."""
    try:
        with path.open("rb") as file:
            content, renewed = file.read(), os.fstat(file.fileno()).st_mtime
    except OSError:
        return None
    try:
        return replace(Holder(**json.loads(content)), renewed=renewed)
    except (ValueError, TypeError):
        return Holder("", 0, "", "", renewed)


def claim(path: Path, holder: Holder) -> bool:
    """Take a lease that nobody holds, or that has expired. Of several processes, one gets it.

    Raises WorkspaceError if it cannot be written.
    """
    if _create(path, holder):
        return True
    old, now = read_holder(path), file_time(path.parent)
    if old and old.is_alive(now):
        return False
    takeover = path.with_name(f".{path.name}.takeover")
    if not _create(takeover, holder):
        _remove_old(takeover, now)
        return False
    try:
        old = read_holder(path)
        if old and old.is_alive(now):  # another process was faster
            return False
        _replace(path, holder)
        return True
    except OSError as error:
        raise WorkspaceError(f"cannot write {path}: {error.strerror}") from None
    finally:
        takeover.unlink(missing_ok=True)


def release(path: Path, holder: Holder) -> None:
    """Give up a lease, unless another process holds it by now."""
    found = read_holder(path)
    if found and found.token == holder.token:
        with suppress(OSError):
            path.unlink(missing_ok=True)


@contextmanager
def kept(paths: Sequence[Path], holder: Holder) -> Iterator[None]:
    """Renew leases while the block runs, in a thread."""
    stop = threading.Event()

    def renew() -> None:
        while not stop.wait(_RENEW_SECONDS):
            for path in paths:
                with suppress(OSError):
                    found = read_holder(path)
                    if found and found.token == holder.token:
                        _replace(path, holder)

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _create(path: Path, holder: Holder) -> bool:
    try:
        with path.open("xb") as file:
            file.write(_content(holder))
    except FileExistsError:
        return False
    except OSError as error:  # a full disk: an empty lease would hold
        with suppress(OSError):
            path.unlink(missing_ok=True)
        raise WorkspaceError(f"cannot write {path}: {error.strerror}") from None
    return True


def _replace(path: Path, holder: Holder) -> None:
    draft = path.with_name(f".{path.name}-{holder.token}.new")
    draft.write_bytes(_content(holder))
    draft.replace(path)


def _remove_old(takeover: Path, now: float) -> None:
    """Remove the mark of a process that ended while it took a lease over."""
    with suppress(OSError):
        if takeover.stat().st_mtime + LEASE_SECONDS < now:
            takeover.unlink()


def _content(holder: Holder) -> bytes:
    content = asdict(holder)
    del content["renewed"]
    return json.dumps(content).encode()


@cache
def _machine() -> str:
    parts = [socket.gethostname()]
    with suppress(OSError):  # not on Linux
        parts += [
            Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            str(Path("/proc/self/ns/pid").readlink()),
        ]
    return " ".join(parts)


def _is_running(pid: int) -> bool:
    if os.name == "nt":  # os.kill would end it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
