"""Leases: who works on a unit. They save double work, and show what is being done; results do not depend on them."""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

LEASE_SECONDS = 120.0
"""A lease that is not renewed for so long has expired. Clocks of the machines may differ by less than that."""
_RENEW_SECONDS = 30.0


@dataclass(frozen=True)
class Holder:
    """Who holds a lease."""

    host: str
    pid: int
    token: str
    expires: float
    """Seconds since 1970."""

    @classmethod
    def new(cls) -> "Holder":
        """The present process, from now on."""
        return cls(socket.gethostname(), os.getpid(), uuid.uuid4().hex[:12], time.time() + LEASE_SECONDS)

    @property
    def is_alive(self) -> bool:
        """Whether the lease holds. A process of this machine that has ended holds none."""
        return self.expires > time.time() and (self.host != socket.gethostname() or _is_running(self.pid))


def read_holder(path: Path) -> Holder | None:
    """Return who holds a lease; None if there is none. One that is being written counts as held."""
    try:
        return Holder(**json.loads(path.read_bytes()))
    except (ValueError, TypeError):
        with suppress(OSError):
            return Holder("", 0, "", path.stat().st_mtime + LEASE_SECONDS)
    except OSError:
        pass
    return None


def claim(path: Path, holder: Holder) -> bool:
    """Take a lease that nobody holds, or that has expired. Of several processes, one gets it."""
    if _create(path, holder):
        return True
    old = read_holder(path)
    if old and old.is_alive:
        return False
    takeover = path.with_name(f".{path.name}.takeover")
    if not _create(takeover, holder):
        _remove_old(takeover)
        return False
    try:
        old = read_holder(path)
        if old and old.is_alive:  # another process was faster
            return False
        _replace(path, holder)
        return True
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
    return True


def _replace(path: Path, holder: Holder) -> None:
    draft = path.with_name(f".{path.name}-{holder.token}.new")
    draft.write_bytes(_content(holder))
    draft.replace(path)


def _remove_old(takeover: Path) -> None:
    """Remove the mark of a process that ended while it took a lease over."""
    with suppress(OSError):
        if takeover.stat().st_mtime + LEASE_SECONDS < time.time():
            takeover.unlink()


def _content(holder: Holder) -> bytes:
    return json.dumps(asdict(holder) | {"expires": time.time() + LEASE_SECONDS}).encode()


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
