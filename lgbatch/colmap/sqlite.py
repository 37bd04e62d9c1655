"""COLMAP's library and its files: its log, its databases on disk, photos as it reads them, images as it stores them.

pycolmap is imported inside the functions: where it comes before zlib or numpy, its own symbols shadow theirs.
"""

import contextlib
import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lgbatch.errors import DatabaseError

if TYPE_CHECKING:
    import pycolmap

WAY_OUT = "delete the database to have it built anew, or use another workspace"
WAIT_SECONDS = 20.0
"""How long a database that another program uses is waited for."""
_LOOK_SECONDS = 0.2
_SQLITE = b"SQLite format 3\0"
_TABLES = {"cameras", "images", "keypoints"}
_SIDE_FILES = ("-wal", "-shm", "-journal")


def open_database(path: Path, *, shared: bool = True) -> "pycolmap.Database":
    """Open or make a database, to be used as a context manager.

    One that another program is writing to is waited for, as by `settle`, if it is `shared` with others at all. Raises
    DatabaseError where that fails.
    """
    db = _open(path)
    if db is None and shared and _wait_for_others(path):
        db = _open(path)
    if db is None:
        raise DatabaseError(
            f"{path} is no COLMAP database, in use, or cannot be written: check free space, close other programs that "
            f"use it, or {WAY_OUT}"
        )
    return db


def settle(path: Path) -> None:
    """Fold into the database the log that a killed program left.

    While another program has the database open, it is waited for, which one line on standard error says. Raises
    DatabaseError when it still has after WAIT_SECONDS, and when the database cannot be written.
    """
    if not _side_files(path):
        return
    if not path.exists():  # a log without its database would be replayed into the next one
        _remove(path)
    elif not _wait_for_others(path):
        if not _is_in_use(path):
            raise DatabaseError(f"cannot write {path}: check free space and permissions")
        raise DatabaseError(f"{path} is open in another program (COLMAP?): close it there and run again")


def _wait_for_others(path: Path) -> bool:
    """Whether the database is free, now or within WAIT_SECONDS."""
    end, told = time.monotonic() + WAIT_SECONDS, False
    while not _is_free(path):
        if time.monotonic() > end or not _is_in_use(path):
            return False
        if not told:
            told = True
            print(
                f"lgbatch: {path} is open in another program (COLMAP?): waiting up to {WAIT_SECONDS:.0f} s for it",
                file=sys.stderr,
            )
        time.sleep(_LOOK_SECONDS)
    return True


def _is_free(path: Path) -> bool:
    """Whether no other program has the database open. The last one to close it folds in its log and removes it."""
    db = _open(path)
    if db is not None:
        db.close()
    return db is not None and not _side_files(path)


def _is_in_use(path: Path) -> bool:
    """Whether another program has a database open, be it idle: what else keeps us out may be a full disk."""
    if not _is_sqlite(path):
        return False
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as file:
            file.execute("PRAGMA locking_mode = EXCLUSIVE")
            file.execute("BEGIN IMMEDIATE")
            file.execute("ROLLBACK")
    except sqlite3.Error as error:
        return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    return False


def _open(path: Path) -> "pycolmap.Database | None":
    import pycolmap

    _refuse_others(path)
    try:
        return pycolmap.Database.open(path)
    except (RuntimeError, ValueError):
        return None


def _refuse_others(path: Path) -> None:
    """Raise DatabaseError on the database of another program: COLMAP would put its tables into it."""
    if not _is_sqlite(path):
        return
    # Immutable: no lock is taken, and none that pycolmap might have on the file goes with it.
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)) as file:
        try:
            tables = {name for (name,) in file.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        except sqlite3.Error:  # damaged, as COLMAP will find
            return
    if tables and not tables >= _TABLES:
        raise DatabaseError(
            f"{path} is another program's database, with tables such as {min(tables)}: move it away, or use another "
            "workspace"
        )


def _is_sqlite(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_SQLITE)) == _SQLITE


@contextmanager
def open_draft(path: Path, *, anew: bool = False) -> Iterator[Path]:
    """A copy of the database, or an empty one, beside it; gone afterwards unless `replace` moved it away.

    It is empty where there is no database yet, or one is to be made `anew`.
    """
    draft = path.with_name(path.name + ".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove(draft)
    _refuse_others(path)
    settle(path)
    try:
        if path.exists() and not anew:
            shutil.copyfile(path, draft)
        try:
            open_database(draft, shared=False).close()
        except DatabaseError:
            if not path.exists():
                raise DatabaseError(f"cannot write {path}: check free space and permissions") from None
            raise DatabaseError(f"{path} is no COLMAP database, or there is no free space: {WAY_OUT}") from None
        yield draft
    finally:
        _remove(draft)


def replace(draft: Path, path: Path) -> None:
    """Put a closed draft in the database's place, durably.

    Raises DatabaseError while another program has the database open, and when the draft is not whole.
    """
    if _side_files(draft):  # SQLite could not fold its log in, which it keeps to itself
        raise DatabaseError(f"cannot write {path}: check free space and permissions")
    with draft.open("rb+") as file:  # COLMAP writes with SQLite's synchronous=off
        os.fsync(file.fileno())
    settle(path)
    draft.replace(path)


def _side_files(path: Path) -> list[Path]:
    return [side for end in _SIDE_FILES if (side := path.with_name(path.name + end)).exists()]


def _remove(path: Path) -> None:
    for file in (path, *_side_files(path)):
        file.unlink(missing_ok=True)
