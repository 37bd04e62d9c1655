"""COLMAP databases on file systems without file locks, as some network file systems: used through a local copy.

SQLite, which reads and writes the database, refuses to open a file that it cannot lock.
"""

import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lgbatch.colmap.sqlite import checkpoint, side_files
from lgbatch.errors import DatabaseError, LgbatchError

if sys.platform != "win32":
    import fcntl

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)


@contextmanager
def lockable(path: Path) -> Iterator[Path]:
    """Yield a path by which SQLite can open the database `path`, which need not exist.

    It is `path` itself if the file system has locks, otherwise the path of a copy in the folder of temporary files. At
    the end of the block, also after an exception, a copy that has changed replaces the database. Exceptions of the
    block name the database, not the copy. Raises DatabaseError if there is no local folder for the copy, or if the copy
    cannot replace the database.
    """
    if has_locks(path.parent):
        yield path
        return
    with _temporary_folder(path) as folder:
        copy = folder / path.name
        _copy_in(path, copy)
        before = _state(copy)
        try:
            yield copy
        except LgbatchError as error:
            raise type(error)(str(error).replace(str(copy), str(path))) from None
        finally:
            checkpoint(copy)
            if _state(copy) != before:
                _copy_back(copy, path)


def has_locks(folder: Path) -> bool:
    """Whether the file system of a folder has the locks that SQLite needs. True if no file can be created there."""
    if sys.platform == "win32":
        return True
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _NO_LOCKS
    return True


@contextmanager
def _temporary_folder(path: Path) -> Iterator[Path]:
    """Create a folder for the copy of a database, and delete it at the end."""
    cause = f"{path.parent} is on a file system without file locks, which COLMAP's database needs"
    way_out = "set TMPDIR to a folder on a local disk, or use another workspace"
    try:
        folder = tempfile.TemporaryDirectory(prefix="lgbatch-", ignore_cleanup_errors=True)
    except OSError as error:
        raise DatabaseError(
            f"{cause}, and there is no folder for temporary files ({error.strerror}): {way_out}"
        ) from None
    with folder as name:
        if not has_locks(Path(name)):
            raise DatabaseError(f"{cause}, and so is {Path(name).parent}: {way_out}")
        yield Path(name)


def _copy_in(path: Path, copy: Path) -> None:
    """Copy the database, if it exists, with the log that a killed program left."""
    try:
        for file in [path, *side_files(path)] if path.exists() else []:
            if not file.name.endswith("-shm"):  # an index of the log, which SQLite makes
                shutil.copyfile(file, copy.with_name(file.name))
    except OSError as error:
        reason = f"cannot copy {path} to {copy.parent.parent}: {error.strerror}"
        raise DatabaseError(f"{reason}; free space there, or set TMPDIR to another folder on a local disk") from None


def _copy_back(copy: Path, path: Path) -> None:
    """Replace the database by the copy, atomically and durably, and delete its log."""
    draft = path.with_name(path.name + ".partial")
    try:
        shutil.copyfile(copy, draft)
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        for log in side_files(path):  # its changes are in the copy
            log.unlink()
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise DatabaseError(f"cannot write {path}: {error.strerror}; check free space and permissions") from None


def _state(path: Path) -> tuple[int, ...] | None:
    """Changes with the content of the file. None if it does not exist."""
    if not path.exists():
        return None
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns
