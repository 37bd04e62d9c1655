"""Durable file writes: synced to disk, and replaced atomically."""

import contextlib
import errno
import os
from collections.abc import Iterable
from pathlib import Path

_CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)
"""Errors of fsync that say that the file system does not sync folders."""


def write_synced(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Write a file, whole or in parts, and sync it and its folder to disk. On failure, remove it and raise OSError."""
    try:
        with path.open("wb") as file:
            file.writelines([data] if isinstance(data, bytes) else data)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            path.unlink()
        raise


def replace_synced(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Create or replace a file atomically, through a synced partial file `.{name}.new` in the same folder.

    On failure, remove the partial file, leave `path` as it was and raise OSError.
    """
    partial = path.with_name(f".{path.name}.new")
    write_synced(partial, data)
    try:
        partial.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def sync_folder(folder: Path) -> None:
    """Sync a folder, so that files created or renamed in it survive a power failure.

    A no-op where folders cannot be synced: on Windows, and on some network file systems.
    """
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno not in _CANNOT_SYNC:
                raise
        finally:
            os.close(handle)
