"""Copy a store into a compact HDF5 file, without its unused space."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from h5py import h5g, h5o

from lgbatch.errors import InputError, StoreError
from lgbatch.storage.durable import sync_folder
from lgbatch.storage.hdf5 import ATTRIBUTE, link_names, open_file, read_table, write_table
from lgbatch.storage.journal import JournaledFile
from lgbatch.storage.store import open_to_read, short_reason

_CLOSE_FIRST = os.name == "nt"
"""Windows replaces no open file. Elsewhere the store stays open, and locked, until it is replaced."""


@dataclass(frozen=True)
class Packed:
    """Result of packing a store."""

    path: Path
    """The compact file."""
    bytes_before: int
    """Size of the store."""
    bytes_after: int
    """Size of the compact file."""


def pack(path: Path, out: Path | None = None) -> Packed:
    """Copy a store of lgbatch or hloc into the new file `out`, or replace the store itself if `out` is None.

    The copy is atomic, and compared with the store, array by array, before it is renamed to its final name.
    Raises StoreError if the store is missing, in use or damaged, or the disk is full, and InputError if `out`
    exists already.
    """
    target = out or path
    if out and out.exists():
        raise InputError(f"{out} already exists: choose another name, or move it away")
    draft = target.with_name(f".{target.name}.new")
    try:
        with contextlib.ExitStack() as opened:
            source = opened.enter_context(_open_source(path, lock=out is None))
            bytes_before = path.stat().st_size
            try:
                _copy(source, draft)
                with open_file(draft) as copied:
                    _compare(source, copied, path)
                _sync(draft)
                if _CLOSE_FIRST:
                    opened.close()
                draft.replace(target)
            finally:
                draft.unlink(missing_ok=True)
        sync_folder(target.parent)
    except BlockingIOError:
        raise StoreError(f"{path} is in use by another program: wait for it") from None
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise StoreError(f"cannot pack {path} into {target}: {short_reason(error)}; {path.name} is unchanged") from None
    return Packed(target, bytes_before, target.stat().st_size)


@contextlib.contextmanager
def _open_source(path: Path, lock: bool) -> Iterator[h5py.File]:
    """Open the store; with `lock`, exclusively."""
    if not lock or not path.is_file():
        with open_to_read(path) as file:
            yield file
        return
    with contextlib.closing(JournaledFile(path)) as locked, h5py.File(locked, "r") as file:
        yield file


def _copy(source: h5py.File, draft: Path) -> None:
    with open_file(draft, "w") as target:
        for key, value in source.attrs.items():
            if key != ATTRIBUTE:
                target.attrs[key] = value
        root = h5g.open(source.id, b"/")
        for name in link_names(root):
            h5o.copy(root, name, h5g.open(target.id, b"/"), name)
        if table := read_table(source):
            write_table(h5g.open(target.id, b"/"), table | {"unused": int(target.id.get_freespace())})


def _compare(source: h5py.Group, copied: h5py.Group, path: Path) -> None:
    """Raise StoreError unless two groups have equal content."""
    if set(source) != set(copied):
        raise StoreError(f"the copy of {path} is incomplete: run the command again")
    for name in source:
        if not isinstance(source.get(name, getlink=True), h5py.HardLink):
            raise StoreError(f"{name} in {path} is a link, and links are not followed: remove it")
        node, copy = source[name], copied[name]
        equal = type(node) is type(copy) and node.attrs.keys() == copy.attrs.keys()
        equal = equal and all(np.array_equal(node.attrs[key], copy.attrs[key]) for key in node.attrs)
        if equal and isinstance(node, h5py.Dataset):
            equal = node.dtype == copy.dtype and np.array_equal(node[()], copy[()], equal_nan=node.dtype.kind == "f")
        if not equal:
            raise StoreError(f"the copy of {node.name} in {path} differs: run the command again, and check the disk")
        if isinstance(node, h5py.Group):
            _compare(node, copy, path)


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
