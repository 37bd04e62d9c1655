"""A damaged store without its damaged items: the others are copied into a new file."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5g, h5o

from lgbatch.errors import StoreError
from lgbatch.storage.durable import sync_folder
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.hdf5 import (
    ATTRIBUTE,
    DAMAGE,
    is_group,
    link_properties,
    open_file,
    open_group,
    read_array,
    read_bytes,
    read_record,
    read_table,
    short_reason,
    write_table,
)
from lgbatch.storage.joining.shard_files import ShardFiles
from lgbatch.storage.journal import JournaledFile
from lgbatch.storage.matches import GEOMETRY, MatchStore
from lgbatch.storage.provenance import version_of
from lgbatch.types import counted

_FIRST_ARRAY = {FeatureStore.kind: b"keypoints", MatchStore.kind: b"matches0"}
"""An array that each item has, and no other group, by kind."""

_MOVE = "move it away, and run the stage that writes it again"


@dataclass(frozen=True)
class Repaired:
    """Result of a repair."""

    kind: str
    """Kind of the items: "features" or "matches"."""
    kept: int
    """Items that can be read."""
    lost: int
    """Items that cannot."""
    damaged: tuple[str, ...]
    """Paths of the items in the file that cannot be read, and of groups whose items cannot be listed."""
    aside: Path | None
    """Where the damaged file is now; None if no item is damaged, and the store is as it was."""


def repair(path: Path) -> Repaired:
    """Replace a damaged store by one with the items that can be read. The damaged file stays beside it.

    All arrays are read. Features must have the version, and matches the number, that their record tells.

    Raises StoreError if the store is missing, in use, not lgbatch's or only links to shards, if none of its
    items or its table of provenances cannot be read, or if the new file cannot be written. The store is unchanged then.
    """
    if not path.is_file():
        raise StoreError(f"there is no file {path}: give a features.h5 or matches.h5")
    draft = path.with_name(f".{path.name}.new")
    try:
        with contextlib.closing(JournaledFile(path)) as locked, _open(locked, path) as source:
            done = _copy_readable(source, _table(source, path), draft)
        if not done.lost:
            return done
        if not done.kept:
            raise StoreError(f"none of the {counted(done.lost, 'item')} of {path} can be read: {_MOVE}")
        aside = _unused_name(path)
        path.rename(aside)
        draft.rename(path)
        sync_folder(path.parent)
    except BlockingIOError:
        raise StoreError(f"{path} is in use by another program: wait for it") from None
    except OSError as error:
        raise StoreError(f"cannot repair {path}: {short_reason(error)}") from None
    finally:
        draft.unlink(missing_ok=True)
    return Repaired(done.kind, done.kept, done.lost, done.damaged, aside)


def _open(file: JournaledFile, path: Path) -> h5py.File:
    try:
        return h5py.File(file, "r")
    except DAMAGE as error:
        raise StoreError(f"nothing of {path} can be read ({short_reason(error)}): {_MOVE}") from None


def _table(source: h5py.File, path: Path) -> dict[str, Any]:
    try:
        table = read_table(source)
    except DAMAGE as error:
        reason = short_reason(error)
        raise StoreError(f"what made the items of {path} cannot be read ({reason}): {_MOVE}") from None
    if table is None or table["kind"] not in _FIRST_ARRAY:
        raise StoreError(f"{path} was not made by lgbatch: give a features.h5 or matches.h5")
    if "shards" in table:
        ShardFiles(path, table["shards"]).refuse_change()
    return table


def _copy_readable(source: h5py.File, table: Mapping[str, Any], draft: Path) -> Repaired:
    """Copy the items that can be read into a new file. Raises OSError."""
    kind = table["kind"]
    made = {key: entry | {"items": 0, "points": 0} for key, entry in table["made"].items()}
    kept, damaged = 0, []
    with open_file(draft, "w") as target:
        _copy_attributes(source, target)
        root, copied = (h5g.open(file.id, b"/") for file in (source, target))
        for path, is_item in _walk(root, _FIRST_ARRAY[kind]):
            record = _copy_item(root, path, copied, kind) if is_item else None
            if record is None:
                damaged.append(path.decode(errors="replace"))
                continue
            kept += 1
            if entry := made.get(f"{record[0]:016x}"):
                entry["items"] += 1
                entry["points"] += record[-1]
        made = {key: entry for key, entry in made.items() if entry["items"]}
        write_table(copied, {**table, "made": made, "unused": int(target.id.get_freespace())})
    with draft.open("rb+") as file:
        os.fsync(file.fileno())
    total = sum(entry["items"] for entry in table["made"].values())
    return Repaired(kind, kept, max(total - kept, len(damaged)), tuple(sorted(damaged)), None)


def _walk(parent: h5g.GroupID, first_array: bytes, prefix: bytes = b"") -> Iterator[tuple[bytes, bool]]:
    """Yield the path of each item, and True, and of each group whose content cannot be listed, and False."""
    names: list[bytes] = []
    try:
        parent.links.iterate(names.append)
    except DAMAGE:
        yield prefix.rstrip(b"/") or b"/", False
    for name in names:
        try:
            array = name + b"/" + first_array
            is_item = parent.links.exists(array) and not is_group(parent, array)
            group = open_group(parent, name)
        except DAMAGE:
            yield prefix + name, False
            continue
        if is_item:
            yield prefix + name, True
        else:
            yield from _walk(group, first_array, prefix + name + b"/")


def _copy_item(root: h5g.GroupID, path: bytes, target: h5g.GroupID, kind: str) -> list[int] | None:
    """Copy an item, and return its record; None if it is damaged."""
    try:
        node = open_group(root, path)
        record = _features_record(root, path, node) if kind == FeatureStore.kind else _pair_record(root, path, node)
    except DAMAGE:
        return None
    h5o.copy(root, path, target, path, lcpl=link_properties())
    return record


def _features_record(root: h5g.GroupID, path: bytes, node: h5g.GroupID) -> list[int]:
    """Read the features of an image, and return their record. Raises one of DAMAGE."""
    arrays = [(b"keypoints", "f", 2), (b"scores", "f", 1), (b"descriptors", "f", 2), (b"image_size", "i", 1)]
    optional = [(b"orientation", "i", 1), (b"scales", "f", 1), (b"oris", "f", 1)]
    arrays += [array for array in optional if node.links.exists(array[0])]
    version, record = (
        version_of(*(read_array(node, *array) for array in arrays)),
        read_record(root, path, FeatureStore.record_words),
    )
    if record is None or record[1] != version:
        raise ValueError("its arrays are not those that were written")
    return record


def _pair_record(root: h5g.GroupID, path: bytes, node: h5g.GroupID) -> list[int]:
    """Read the matches of a pair, and return their record. Raises one of DAMAGE."""
    matches0, scores = read_array(node, b"matches0", "i", 1), read_array(node, b"matching_scores0", "f", 1)
    read_bytes(node, GEOMETRY)
    record = read_record(root, path, MatchStore.record_words)
    if record is None or len(matches0) != len(scores) or np.count_nonzero(matches0 >= 0) != record[-1]:
        raise ValueError("its arrays are not those that were written")
    return record


def _copy_attributes(source: h5py.File, target: h5py.File) -> None:
    """Copy the attributes of a file that can be read, such as the folder of the photos."""
    for key in source.attrs:
        with contextlib.suppress(*DAMAGE):
            if key != ATTRIBUTE:
                target.attrs[key] = source.attrs[key]


def _unused_name(path: Path) -> Path:
    """A name beside the store that no file has: matches.h5.damaged, then matches.h5.damaged-2, ..."""
    name, number = path.with_name(f"{path.name}.damaged"), 1
    while name.exists():
        number += 1
        name = path.with_name(f"{path.name}.damaged-{number}")
    return name
