"""Markers: the file that says that a unit is done, with the hash of its store and what failed."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lgbatch.shards.folder import ShardFolder
from lgbatch.shards.steps import Step, Unit


@dataclass(frozen=True, kw_only=True)
class Marker:
    """A unit that is done."""

    unit: str
    sha256: str
    """Of the store."""
    size: int
    """Bytes of the store."""
    items: int
    """Photos or pairs that the store has."""
    failures: tuple[dict[str, Any], ...]
    """Entries of the ledger."""
    results: tuple[tuple[int, int], ...] = ()
    """Matches and inliers of each pair of the unit, in order; zeros if it failed."""
    began: float
    """Seconds since 1970."""
    seconds: float
    machine: str
    digest: str = field(default="")
    """Of the other fields."""

    def as_bytes(self) -> bytes:
        """The content of the file."""
        content = asdict(self) | {"digest": ""}
        return json.dumps(content | {"digest": _digest(content)}).encode() + b"\n"


def read_marker(path: Path) -> Marker | None:
    """Return a marker; None if there is none, or it is damaged."""
    try:
        content = json.loads(path.read_bytes())
        if content["digest"] != _digest(content | {"digest": ""}):
            return None
        results = tuple((matches, inliers) for matches, inliers in content.pop("results"))
        return Marker(failures=tuple(content.pop("failures")), results=results, **content)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def done_marker(folder: ShardFolder, step: Step, unit: Unit) -> Marker | None:
    """Return the marker of a unit whose store has the right size; None if it is not done."""
    marker = read_marker(folder.marker(step.name, unit.name))
    try:
        size = folder.shard(step.name, unit.name).stat().st_size
    except OSError:
        return None
    return marker if marker and marker.unit == unit.name and marker.size == size else None


def damage(folder: ShardFolder, step: Step, unit: Unit) -> str:
    """Why a unit that has a marker is not done after all; empty if it is well. Reads the whole store."""
    marker = read_marker(folder.marker(step.name, unit.name))
    if marker is None or marker.unit != unit.name:
        return "its marker is damaged"
    try:
        with folder.shard(step.name, unit.name).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"its store cannot be read ({error.strerror})"
    return "" if found == marker.sha256 else "its store is damaged"
