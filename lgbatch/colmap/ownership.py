"""Whether lgbatch wrote a COLMAP database: a mark in the file, SQLite's application id.

A database with the mark is a view of the stores, so an import may rebuild it. One without it belongs to the user, and
an import only adds to it. COLMAP neither reads nor changes the application id. What the user edits in a database with
the mark is lost when it is rebuilt: the import tells of edited cameras.
"""

import contextlib
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pycolmap

_APPLICATION_ID = int.from_bytes(b"lgba")
_OFFSET = 68  # of the application id in the header of an SQLite file, 4 bytes, big-endian


def mark(draft: Path) -> None:
    """Mark a closed database that nothing else has open as written by lgbatch. Raises sqlite3.Error."""
    _set_application_id(draft, _APPLICATION_ID)


def unmark(draft: Path) -> None:
    """Remove the mark from such a database: it is the user's, and no import rebuilds it. Raises sqlite3.Error."""
    _set_application_id(draft, 0)


def _set_application_id(draft: Path, value: int) -> None:
    with contextlib.closing(sqlite3.connect(draft)) as connection:
        connection.execute(f"PRAGMA application_id = {value}")


def is_marked(path: Path) -> bool:
    """Whether lgbatch wrote the database. False if there is no such file."""
    try:
        with path.open("rb") as file:
            file.seek(_OFFSET)
            return int.from_bytes(file.read(4)) == _APPLICATION_ID
    except OSError:
        return False


def count_edited_cameras(old: "pycolmap.Database", new: "pycolmap.Database") -> int:
    """Count the cameras of `old` with other parameters than the camera of the same image in `new`."""
    before, now = ({camera.camera_id: camera for camera in db.read_all_cameras()} for db in (old, new))
    successors = {image.name: now[image.camera_id] for image in new.read_all_images()}
    edited = set()
    for image in old.read_all_images():
        camera, successor = before[image.camera_id], successors.get(image.name)
        if successor and (camera.model, list(camera.params)) != (successor.model, list(successor.params)):
            edited.add(image.camera_id)
    return len(edited)
