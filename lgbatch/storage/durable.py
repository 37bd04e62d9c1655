"""A file that is changed in whole steps: killed at any instant, it is as the last `commit` left it.

HDF5 changes its metadata in place, so that a process killed while it writes leaves a file that nothing can open.
This file object stands between h5py (driver `fileobj`) and the disk:

- bytes beyond the committed end go to the file, a few megabytes at a time: nothing that is committed points there;
- bytes within it are kept in memory until `commit`, which syncs the new bytes, writes the changed ones to a journal
  beside the file, syncs that, and only then changes the file;
- a journal that is found when the file is opened was complete (it is replayed) or was not (it is dropped).

So the file is one ordinary HDF5 file at all times, bulk data is written once, and a commit costs what changed.
One process at a time changes a file: it is locked while it is open here, in the way that HDF5 locks its own.
"""

import contextlib
import os
import sys
from pathlib import Path

if sys.platform != "win32":
    pass


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and wait until it is on the disk. A file that could not be written whole is removed."""
    try:
        with path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            path.unlink()
        raise


def sync_folder(folder: Path) -> None:
    """Wait until names made or renamed in a folder are on the disk (where the system can say so)."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
