"""Describe the stores and the database of a workspace: contents, provenance and disk space."""

import contextlib
import os
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py

from lgbatch.colmap.local_copy import lockable
from lgbatch.colmap.log import colmap_log_off
from lgbatch.colmap.sqlite import checkpoint, side_files, uri
from lgbatch.errors import DatabaseError, InputError
from lgbatch.storage.commit_journal import journal_path
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.hdf5 import open_file
from lgbatch.storage.matches import MatchStore
from lgbatch.storage.provenance import format_provenance
from lgbatch.storage.store import Store
from lgbatch.types import counted
from lgbatch.workspace.folder import Workspace

Info = dict[str, Any]
_COUNTS = {
    "items": "SELECT COUNT(*) FROM images",
    "cameras": "SELECT COUNT(*) FROM cameras",
    "keypoints": "SELECT COALESCE(SUM(rows), 0) FROM keypoints",
    "pairs": "SELECT COUNT(*) FROM matches WHERE rows > 0",
    "matches": "SELECT COALESCE(SUM(rows), 0) FROM matches",
    "verified_pairs": "SELECT COUNT(*) FROM two_view_geometries WHERE rows > 0",
}
"""SQL of the figures of a COLMAP database. Opening it with COLMAP would write to it."""
_UNITS = ("B", "kB", "MB", "GB", "TB")


def describe(path: Path) -> list[Info]:
    """Describe a store, a database, or those of a workspace, as plain values ready for JSON.

    kind       "features", "matches" or "database"
    items      number of images, or of pairs for matches
    keypoints  or matches: their number in all items
    made       entries by provenance: fingerprint, `by` (the provenance; None if unknown), items, keypoints or matches
    bytes      size of the file; packing frees `unused_bytes` of it, which is None for a file of another program
    shards     number of shards that the file links to, which have the items; 0 for a plain file
    journal    whether there was a journal of an interrupted commit, which opening the store has finished

    Raises InputError if there is no such file, StoreError or DatabaseError if one cannot be read.
    """
    workspace = Workspace(path)
    candidates = [workspace.features, workspace.matches, workspace.database] if path.is_dir() else [path]
    files = [file for file in candidates if file.is_file()]
    if not files:
        raise InputError(f"no features.h5, matches.h5 or database.db in {path}: give a workspace, or one of its files")
    for file in files:
        if file == path and not (_is_database(file) or may_be_store(file)):
            raise InputError(f"{path} is neither a store nor a database: give a workspace, or one of its files")
    return [_describe_database(file) if _is_database(file) else _describe_store(file) for file in files]


def may_be_store(path: Path) -> bool:
    """Whether a file is HDF5, or a damaged store by its name or its journal."""
    return path.is_file() and (path.suffix == ".h5" or journal_path(path).exists() or h5py.is_hdf5(path))


def format_infos(infos: Sequence[Info]) -> str:
    """Format the result of `describe` as lines for the terminal."""
    return "\n".join(line for info in infos for line in _lines(info))


def _describe_store(path: Path) -> Info:
    interrupted = journal_path(path).exists()
    points = "matches" if _holds_matches(path) else "keypoints"
    info = _describe_matches(path) if points == "matches" else _describe_features(path)
    totals = {key: sum(entry[key] for entry in info["made"]) for key in ("items", points)}
    return {"path": str(path), "bytes": path.stat().st_size, "journal": interrupted} | info | totals


def _describe_matches(path: Path) -> Info:
    with MatchStore(path) as store:
        made = _entries(store.provenances, "matches")
        made = made or _unknown_entry([store.count(*names) for names in store.groups()], "matches")
        return {"kind": "matches", "unused_bytes": store.unused_bytes, "shards": _shards(store), "made": made}


def _describe_features(path: Path) -> Info:
    with FeatureStore(path) as store:
        made = _entries(store.provenances, "keypoints")
        made = made or _unknown_entry([store.count(name) for name in store.names()], "keypoints")
        folder = str(store.image_folder) if store.image_folder else None
        sizes = {"unused_bytes": store.unused_bytes, "shards": _shards(store)}
        return {"kind": "features", **sizes, "made": made, "image_folder": folder}


def _shards(store: Store) -> int:
    return len(store.shards) if store.shards else 0


def _entries(provenances: Mapping[int, Info], points: str) -> list[Info]:
    """The entries `made` of a store, those with most items first."""
    return [
        {"fingerprint": f"{fingerprint:016x}", "by": entry["by"], "items": entry["items"], points: entry["points"]}
        for fingerprint, entry in sorted(provenances.items(), key=lambda item: -int(item[1]["items"]))
    ]


def _unknown_entry(counts: Sequence[int], points: str) -> list[Info]:
    """The entry `made` of a file without provenance, given the number of keypoints or matches of each item."""
    return [{"fingerprint": None, "by": None, "items": len(counts), points: sum(counts)}] if counts else []


def _holds_matches(path: Path) -> bool:
    """Whether the file is a matches store. A file of another program is one if it has a dataset matches0."""
    with FeatureStore(path) as store:
        if store.stored_kind:
            return store.stored_kind == "matches"
    with open_file(path) as file:
        has_matches: bool | None = file.visit(lambda name: True if name.endswith("/matches0") else None)
    return bool(has_matches)


def _is_database(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(6) == b"SQLite"


def _describe_database(path: Path) -> Info:
    if side_files(path) and os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
        with colmap_log_off(), lockable(path) as local:
            checkpoint(local)
    # immutable=1: neither locks nor files beside the database, which COLMAP needs to open it.
    try:
        with contextlib.closing(sqlite3.connect(f"{uri(path.absolute())}?immutable=1", uri=True)) as connection:
            counts = {key: connection.execute(query).fetchone()[0] for key, query in _COUNTS.items()}
    except sqlite3.Error as error:
        raise DatabaseError(f"cannot read {path}: {error}; is it a COLMAP database?") from None
    return {"path": str(path), "kind": "database", "bytes": path.stat().st_size} | counts


def _lines(info: Info) -> list[str]:
    if info["kind"] == "database":
        contents = (
            f"{counted(info['items'], 'image')}, {counted(info['cameras'], 'camera')}, "
            f"{counted(info['keypoints'], 'keypoint')}; {counted(info['pairs'], 'pair')} with "
            f"{counted(info['matches'], 'match', 'matches')}, {counted(info['verified_pairs'], 'verified pair')}"
        )
        return [f"{info['path']}: COLMAP database", f"  contents  {contents}", f"  size      {_size(info['bytes'])}"]
    lines = [f"{info['path']}: {info['kind']}", f"  contents  {_contents(info['kind'], info)}"]
    for entry in info["made"]:
        provenance = format_provenance(entry["by"]) if entry["by"] else "unknown provenance"
        lines.append(f"  made by   {provenance}: {_contents(info['kind'], entry)}")
    unused = info["unused_bytes"]
    lines.append(f"  size      {_size(info['bytes'])}" + (f", of which {_size(unused)} unused" if unused else ""))
    if info["shards"]:
        lines.append(f"  shards    {info['shards']}, which have the items: the file only links to them")
    if info["journal"]:
        lines.append("  journal   finished a commit that a killed program had left unfinished")
    if info.get("image_folder"):
        lines.append(f"  photos    {info['image_folder']}")
    return lines


def _contents(kind: str, entry: Info) -> str:
    """The items of a store, with their keypoints or matches."""
    if kind == "features":
        return f"{counted(entry['items'], 'image')}, {counted(entry['keypoints'], 'keypoint')}"
    return f"{counted(entry['items'], 'pair')}, {counted(entry['matches'], 'match', 'matches')}"


def _size(count: float) -> str:
    for unit in _UNITS:
        if count < 1000 or unit == _UNITS[-1]:
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
