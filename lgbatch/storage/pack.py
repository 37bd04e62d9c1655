"""A store copied into one compact HDF5 file, without the space that nothing uses any more."""

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
from lgbatch.storage.hdf5 import FORMAT, MADE_BY, link_names, read_table, write_table
from lgbatch.storage.journal import JournaledFile
from lgbatch.storage.store import open_to_read, reason


@dataclass(frozen=True)
class Packed:
    """What packing did."""

    path: Path
    before: int
    after: int
    """Bytes of the store, and of what it was packed into."""


def pack(path: Path, out: Path | None = None) -> Packed:
    """Copy all of a store, by lgbatch or hloc, into the new file `out`; without it, into the place of the store itself.

    The copy is compared with the store, every array, before it takes its name: it is there whole or not at all.
    Raises StoreError when the store is not there, in use or damaged, or when the disk is full, and InputError when
    `out` is there already.
    """
    target = out or path
    if out and out.exists():
        raise InputError(f"{out} is there already: give another name, or move it away")
    draft = target.with_name(f".{target.name}.new")
    try:
        with _opened(path, lock=out is None) as source:
            before = path.stat().st_size
            try:
                _copy(source, draft)
                with h5py.File(draft, "r") as copied:
                    _compare(source, copied, path)
                _sync(draft)
                draft.replace(target)
            finally:
                draft.unlink(missing_ok=True)
        sync_folder(target.parent)
    except BlockingIOError:
        raise StoreError(f"{path} is in use by another program: wait for it") from None
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise StoreError(f"cannot pack {path} into {target}: {reason(error)}; {path.name} is as it was") from None
    return Packed(target, before, target.stat().st_size)


@contextlib.contextmanager
def _opened(path: Path, lock: bool) -> Iterator[h5py.File]:
    """The store; with `lock`, no other program has it open."""
    if not lock or not path.is_file():
        with open_to_read(path) as file:
            yield file
        return
    with contextlib.closing(JournaledFile(path)) as locked, h5py.File(locked, "r") as file:
        yield file


def _copy(source: h5py.File, draft: Path) -> None:
    with h5py.File(draft, "w", libver=FORMAT) as target:
        for key, value in source.attrs.items():
            if key != MADE_BY:
                target.attrs[key] = value
        root = h5g.open(source.id, b"/")
        for name in link_names(root):
            h5o.copy(root, name, h5g.open(target.id, b"/"), name)
        if table := read_table(source):
            write_table(h5g.open(target.id, b"/"), table | {"unused": int(target.id.get_freespace())})


def _compare(source: h5py.Group, copied: h5py.Group, path: Path) -> None:
    if set(source) != set(copied):
        raise StoreError(f"{path} was not copied whole: run it again")
    for name in source:
        if not isinstance(source.get(name, getlink=True), h5py.HardLink):
            raise StoreError(f"{name} in {path} is a link to elsewhere, which is not followed: take it out")
        node, other = source[name], copied[name]
        same = type(node) is type(other) and node.attrs.keys() == other.attrs.keys()
        same = same and all(np.array_equal(node.attrs[key], other.attrs[key]) for key in node.attrs)
        if same and isinstance(node, h5py.Dataset):
            same = node.dtype == other.dtype and np.array_equal(node[()], other[()], equal_nan=node.dtype.kind == "f")
        if not same:
            raise StoreError(f"{node.name} of {path} was not copied as it is: run it again, and check the disk")
        if isinstance(node, h5py.Group):
            _compare(node, other, path)


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
