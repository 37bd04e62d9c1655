"""Whether lgbatch wrote a COLMAP database: a mark in the file, SQLite's application id.

A database with the mark is a view of the stores, so an import may rebuild it. One without it belongs to the user, and
an import only adds to it. COLMAP neither reads nor changes the application id.
"""

import contextlib
import sqlite3
from pathlib import Path

_APPLICATION_ID = int.from_bytes(b"lgba")
_OFFSET = 68  # of the application id in the header of an SQLite file, 4 bytes, big-endian


def mark(draft: Path) -> None:
    """Mark a closed database that nothing else has open as written by lgbatch. Raises sqlite3.Error."""
    with contextlib.closing(sqlite3.connect(draft)) as connection:
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")


def is_marked(path: Path) -> bool:
    """Whether lgbatch wrote the database. False if there is no such file."""
    try:
        with path.open("rb") as file:
            file.seek(_OFFSET)
            return int.from_bytes(file.read(4)) == _APPLICATION_ID
    except OSError:
        return False
