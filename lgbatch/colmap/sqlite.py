"""COLMAP's SQLite database file: open it, wait for other programs, and replace it atomically by an edited copy."""

import contextlib
import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import TYPE_CHECKING
from urllib.parse import quote

from lgbatch.errors import DatabaseError

if TYPE_CHECKING:
    import pycolmap

REBUILD_HINT = "delete the database to rebuild it, or use another workspace"
"""End of the error messages about a database that cannot be updated."""
WAIT_SECONDS = 20.0
"""Longest wait for a database that another program has open."""
_POLL_SECONDS = 0.2
_SQLITE_MAGIC = b"SQLite format 3\0"
_COLMAP_TABLES = {"cameras", "images", "keypoints"}
_SIDE_FILES = ("-wal", "-shm", "-journal")


def open_database(path: Path, *, shared: bool = True) -> "pycolmap.Database":
    """Open or create a COLMAP database. Use the result as a context manager.

    If the database is `shared` and another program is writing to it, waits up to WAIT_SECONDS. Raises DatabaseError if
    the database cannot be opened.
    """
    db = _open(path)
    if db is None and shared and _wait_until_free(path):
        db = _open(path)
    if db is None:
        raise DatabaseError(
            f"cannot open {path}: it is not a COLMAP database, is in use, or cannot be written; check free space, "
            f"close other programs that use it, or {REBUILD_HINT}"
        )
    return db


def verified_pairs(path: Path) -> dict[frozenset[str], int]:
    """Return the numbers of inlier matches of the verified pairs of a database, by the names of their images."""
    import pycolmap

    with open_database(path) as db:
        names = {image.image_id: image.name for image in db.read_all_images()}
        found = zip(*db.read_two_view_geometry_num_inliers(), strict=True)
        inliers = {pycolmap.pair_id_to_image_pair(pair_id): count for pair_id, count in found if count}
    return {frozenset((names[a], names[b])): count for (a, b), count in inliers.items()}


def checkpoint(path: Path) -> None:
    """Write the log that a killed program left (SQLite's -wal or -journal file) back into the database.

    If another program has the database open, prints one line on standard error and waits up to WAIT_SECONDS. Raises
    DatabaseError if the database is still open then, or cannot be written.
    """
    if not side_files(path):
        return
    if not path.exists():  # SQLite would replay a log without its database into the next database of that name
        _remove(path)
    elif not _wait_until_free(path):
        if not _is_in_use(path):
            raise DatabaseError(f"cannot write {path}: check free space and permissions")
        raise DatabaseError(f"{path} is open in another program (COLMAP?): close it there and run again")


def _wait_until_free(path: Path) -> bool:
    """Wait up to WAIT_SECONDS while another program has the database open. Returns whether it is free."""
    deadline, announced = time.monotonic() + WAIT_SECONDS, False
    while not _is_free(path):
        if time.monotonic() > deadline or not _is_in_use(path):
            return False
        if not announced:
            announced = True
            print(
                f"lgbatch: {path} is open in another program (COLMAP?): waiting up to {WAIT_SECONDS:.0f} s for it",
                file=sys.stderr,
            )
        time.sleep(_POLL_SECONDS)
    return True


def _is_free(path: Path) -> bool:
    """Whether no other program has the database open.

    Opens and closes it: the last connection to close merges the log into the database and deletes it.
    """
    db = _open(path)
    if db is not None:
        db.close()
    return db is not None and not side_files(path)


def _is_in_use(path: Path) -> bool:
    """Whether another program has the database open, even if idle. A full disk also blocks access, but is not use."""
    if not _is_sqlite(path):
        return False
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    return False


def _open(path: Path) -> "pycolmap.Database | None":
    """Open or create the database. Returns None if COLMAP cannot."""
    import pycolmap

    _check_not_foreign(path)
    try:
        return pycolmap.Database.open(path)
    except (RuntimeError, ValueError):
        return None


def _check_not_foreign(path: Path) -> None:
    """Raise DatabaseError if `path` is another program's SQLite database: COLMAP would add its tables to it."""
    if not _is_sqlite(path):
        return
    # immutable=1: no locks. POSIX locks belong to the process: sqlite3 would release those of pycolmap's own SQLite.
    with contextlib.closing(sqlite3.connect(f"{uri(path.absolute())}?immutable=1", uri=True)) as connection:
        try:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        except sqlite3.Error:  # damaged: opening it in COLMAP reports that
            return
    if tables and not tables >= _COLMAP_TABLES:
        raise DatabaseError(
            f"{path} is another program's database, with tables such as {min(tables)}: move it away, or use another "
            "workspace"
        )


def uri(path: PurePath) -> str:
    """Return the URI of an absolute path in SQLite's form, which takes no host: //server/share is part of the path."""
    text = path.as_posix()
    return f"file://{'' if text.startswith('/') else '/'}{quote(text, safe='/:')}"


def _is_sqlite(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_SQLITE_MAGIC)) == _SQLITE_MAGIC


@contextmanager
def open_draft(path: Path, *, empty: bool = False, suffix: str = ".partial") -> Iterator[Path]:
    """Create a draft beside the database, a copy of it to edit or read. Yields the draft's path.

    The draft is an empty database if `path` does not exist, or with `empty`. It is deleted at the end of the block,
    unless `commit_draft` moved it into place. Raises DatabaseError if the database is in use or unusable, or the draft
    cannot be written.
    """
    draft = path.with_name(path.name + suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove(draft)
    _check_not_foreign(path)
    checkpoint(path)
    try:
        if path.exists() and not empty:
            shutil.copyfile(path, draft)
        try:
            open_database(draft, shared=False).close()
        except DatabaseError:
            if not path.exists():
                raise DatabaseError(f"cannot write {path}: check free space and permissions") from None
            raise DatabaseError(f"{path} is not a COLMAP database, or the disk is full: {REBUILD_HINT}") from None
        yield draft
    finally:
        _remove(draft)


def commit_draft(draft: Path, path: Path) -> None:
    """Replace the database by a closed draft, atomically and durably.

    Raises DatabaseError if another program has the database open, or if SQLite could not finish writing the draft.
    """
    if side_files(draft):  # SQLite failed to merge its log into the draft, and does not report that
        raise DatabaseError(f"cannot write {path}: check free space and permissions")
    with draft.open("rb+") as file:  # COLMAP writes with SQLite's synchronous=off
        os.fsync(file.fileno())
    checkpoint(path)
    draft.replace(path)


def side_files(path: Path) -> list[Path]:
    """The log files that SQLite keeps beside an open database; after a crash they remain."""
    return [file for suffix in _SIDE_FILES if (file := path.with_name(path.name + suffix)).exists()]


def _remove(path: Path) -> None:
    """Delete a database, if it exists, and its log files."""
    for file in (path, *side_files(path)):
        file.unlink(missing_ok=True)
