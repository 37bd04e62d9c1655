"""What is in a workspace's stores and database: how much, made by what, on how much disk."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py

from lgbatch.colmap.log import colmap_log_off
from lgbatch.colmap.sqlite import open_database, settle
from lgbatch.errors import InputError
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.journal import journal_path
from lgbatch.storage.matches import MatchStore
from lgbatch.storage.provenance import format_provenance
from lgbatch.workspace.folder import Workspace

Info = dict[str, Any]
_UNITS = ("B", "kB", "MB", "GB", "TB")


def gather(place: Path) -> list[Info]:
    """Describe a file, or what there is of a workspace: plain values, ready for JSON.

    kind       "features", "matches" or "database"
    items      how many images, or for matches pairs; `keypoints` or `matches` in all of them
    made       what made them: fingerprint, `by` (None: not lgbatch, or unknown), items, keypoints or matches
    bytes      on disk, of which `unused_bytes` could be had back by packing; None: the file does not say
    journal    whether a killed program had left a commit unfinished; it is finished now

    Raises InputError when there is nothing, StoreError or DatabaseError when it cannot be read.
    """
    workspace = Workspace(place)
    files = [workspace.features, workspace.matches, workspace.database] if place.is_dir() else [place]
    there = [path for path in files if path.is_file()]
    if not there:
        raise InputError(f"no features.h5, matches.h5 or database.db in {place}: give a workspace, or one of its files")
    return [_database(path) if _is_database(path) else _store(path) for path in there]


def in_lines(infos: Sequence[Info]) -> str:
    """The same for a terminal."""
    return "\n".join(line for info in infos for line in _lines(info))


def _store(path: Path) -> Info:
    pending = journal_path(path).exists()
    if _holds_matches(path):
        with MatchStore(path) as matches:
            made = _made(matches.made, "matches") or _unknown_pairs(matches)
            info = {"kind": "matches", "unused_bytes": matches.unused, "made": made}
            points = "matches"
    else:
        with FeatureStore(path) as features:
            made = _made(features.made, "keypoints") or _unknown_images(features)
            folder = features.image_folder
            info = {"kind": "features", "unused_bytes": features.unused, "made": made}
            info["image_folder"] = str(folder) if folder else None
            points = "keypoints"
    totals = {key: sum(entry[key] for entry in made) for key in ("items", points)}
    return {"path": str(path), "bytes": path.stat().st_size, "journal": pending} | info | totals


def _made(table: Mapping[int, Info], points: str) -> list[Info]:
    return [
        {"fingerprint": f"{made:016x}", "by": entry["by"], "items": entry["items"], points: entry["points"]}
        for made, entry in sorted(table.items(), key=lambda item: -int(item[1]["items"]))
    ]


def _unknown_images(store: FeatureStore) -> list[Info]:
    counts = [store.count(name) for name in store.names()]
    return [{"fingerprint": None, "by": None, "items": len(counts), "keypoints": sum(counts)}] if counts else []


def _unknown_pairs(store: MatchStore) -> list[Info]:
    counts = [store.count(*names) for names in store.groups()]
    return [{"fingerprint": None, "by": None, "items": len(counts), "matches": sum(counts)}] if counts else []


def _holds_matches(path: Path) -> bool:
    """Whether this is a matches store; others' files do not say, and are asked for their first array."""
    with FeatureStore(path) as store:
        if store.holds:
            return store.holds == "matches"
    with h5py.File(path, "r") as file:
        found: bool | None = file.visit(lambda name: True if name.endswith("/matches0") else None)
    return bool(found)


def _is_database(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(6) == b"SQLite"


def _database(path: Path) -> Info:
    with colmap_log_off():
        settle(path)
        with open_database(path) as db:
            return {
                "path": str(path),
                "kind": "database",
                "bytes": path.stat().st_size,
                "items": db.num_images(),
                "cameras": db.num_cameras(),
                "keypoints": db.num_keypoints(),
                "pairs": db.num_matched_image_pairs(),
                "matches": db.num_matches(),
                "verified_pairs": sum(count > 0 for count in db.read_two_view_geometry_num_inliers()[1]),
            }


def _lines(info: Info) -> list[str]:
    if info["kind"] == "database":
        held = (
            f"{info['items']} images, {info['cameras']} cameras, {info['keypoints']} keypoints; {info['pairs']} pairs"
        )
        held += f" with {info['matches']} matches, {info['verified_pairs']} of them verified"
        return [f"{info['path']}: COLMAP database", f"  holds     {held}", f"  size      {_size(info['bytes'])}"]
    noun, points = ("images", "keypoints") if info["kind"] == "features" else ("pairs", "matches")
    lines = [f"{info['path']}: {info['kind']}", f"  holds     {info['items']} {noun}, {info[points]} {points}"]
    for entry in info["made"]:
        by = format_provenance(entry["by"]) if entry["by"] else "it does not say"
        lines.append(f"  made by   {by}: {entry['items']} {noun}, {entry[points]} {points}")
    unused = info["unused_bytes"]
    lines.append(f"  size      {_size(info['bytes'])}" + (f", of which {_size(unused)} are unused" if unused else ""))
    if info["journal"]:
        lines.append("  journal   a killed program had left a commit unfinished; it is finished now")
    if info.get("image_folder"):
        lines.append(f"  photos    {info['image_folder']}")
    return lines


def _size(count: float) -> str:
    for unit in _UNITS:
        if count < 1000 or unit == _UNITS[-1]:
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
