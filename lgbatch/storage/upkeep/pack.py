"""Copy a store into a compact HDF5 file: without its unused space, and with all matches compressed."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from h5py import h5d, h5g, h5o

from lgbatch.errors import InputError, StoreError
from lgbatch.storage.durable import sync_folder
from lgbatch.storage.hdf5 import (
    ATTRIBUTE,
    DAMAGE,
    Array,
    is_group,
    link_names,
    open_file,
    open_group,
    read_array,
    read_record,
    read_table,
    short_reason,
    write_table,
)
from lgbatch.storage.item_templates import ItemTemplates
from lgbatch.storage.joining.shard_files import ShardFiles
from lgbatch.storage.journal import JournaledFile
from lgbatch.storage.matches import MatchStore, index_type
from lgbatch.storage.opening import open_to_read

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

    Pairs that lgbatch 0.1 stored uncompressed are compressed. The copy is atomic, and compared with the store, array
    by array, before it is renamed to its final name.
    Raises StoreError if the store is missing, in use, damaged or only links to shards, or the disk is full, and
    InputError if `out` exists already.
    """
    target = out or path
    if out and out.exists():
        raise InputError(f"{out} already exists: choose another name, or move it away")
    draft = target.with_name(f".{target.name}.new")
    try:
        with contextlib.ExitStack() as opened:
            source = opened.enter_context(_open_source(path, lock=out is None))
            if shards := (read_table(source) or {}).get("shards"):
                ShardFiles(path, shards).refuse_change()
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
        root, copied = h5g.open(source.id, b"/"), h5g.open(target.id, b"/")
        table = read_table(source) or {}
        with contextlib.closing(ItemTemplates()) as templates:
            for name in link_names(root):
                if table.get("kind") == MatchStore.kind and is_group(root, name):
                    _copy_pairs(h5g.open(root, name), open_group(copied, name, create=True), templates)
                else:
                    h5o.copy(root, name, copied, name)
        if table:
            write_table(copied, table | {"unused": int(target.id.get_freespace())})


def _copy_pairs(source: h5g.GroupID, target: h5g.GroupID, templates: ItemTemplates) -> None:
    """Copy the pairs of a first image, and compress those that lgbatch 0.1 wrote."""
    for name in link_names(source):
        item = _uncompressed(source, name)
        if item is None:
            h5o.copy(source, name, target, name)
            continue
        templates.write_item(target, name, item.arrays, item.record)
        attributes, copied = (h5py.Group(h5g.open(parent, name)).attrs for parent in (source, target))
        for key in attributes.keys() - copied.keys():
            copied[key] = attributes[key]


class _Item(NamedTuple):
    arrays: dict[bytes, Array]
    record: list[int]


def _uncompressed(parent: h5g.GroupID, name: bytes) -> _Item | None:
    """Read a pair that lgbatch wrote uncompressed; None for anything else."""
    try:
        node, record = open_group(parent, name), read_record(parent, name, MatchStore.record_words)
        compressed = h5d.open(node, b"matches0").get_create_plist().get_layout() == h5d.CHUNKED
        if compressed or record is None or len(link_names(node)) != 2:
            return None
        matches0, scores = read_array(node, b"matches0", "i", 1), read_array(node, b"matching_scores0", "f", 1)
    except DAMAGE:
        return None
    if matches0.dtype != np.int32 or matches0.min(initial=-1) < -1:
        return None
    return _Item({b"matches0": matches0.astype(index_type(matches0)), b"matching_scores0": scores}, record)


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
            kind = node.dtype.kind
            equal = node.dtype == copy.dtype or kind == copy.dtype.kind == "i"  # indices may have become int16
            equal = equal and np.array_equal(node[()], copy[()], equal_nan=kind == "f")
        if not equal:
            raise StoreError(f"the copy of {node.name} in {path} differs: run the command again, and check the disk")
        if isinstance(node, h5py.Group):
            _compare(node, copy, path)


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
