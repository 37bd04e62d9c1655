"""The files of stores: opened for reading, after the commit of a killed process is finished, or created."""

import errno
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
from h5py import h5g

from lgbatch.errors import StoreError
from lgbatch.storage.commit_journal import journal_path
from lgbatch.storage.durable import replace_synced
from lgbatch.storage.hdf5 import LIBVER, limit_cache, open_file, write_table
from lgbatch.storage.journal import recover


def open_to_read(path: Path) -> h5py.File:
    """Open an HDF5 file for reading, after the commit of a killed process is finished. Raises OSError, StoreError."""
    if not path.is_file():
        raise StoreError(
            f"no {path.name} in {path.parent}: run the stage that writes it, or choose another --workspace"
        )
    if journal_path(path).exists():
        try:
            recover(path)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            raise StoreError(
                f"{path} has a commit to finish, which a killed program left, and cannot be written: run "
                "`lgbatch info` once where it can be"
            ) from None
    file = open_file(path)
    limit_cache(file)
    return file


def create(path: Path, table: Mapping[str, Any]) -> None:
    """Create an empty store with this provenance table. Raises OSError."""
    journal_path(path).unlink(missing_ok=True)  # left by a deleted file: it must not be replayed into the new one
    image = io.BytesIO()
    with h5py.File(image, "w", libver=LIBVER) as file:
        write_table(h5g.open(file.id, b"/"), table)
    replace_synced(path, image.getvalue())
