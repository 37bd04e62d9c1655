"""Steps: numbered lists of units, and the inputs of each unit, in files that are never changed."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from lgbatch.errors import InputError
from lgbatch.shards.folder import Json, ShardFolder, read_json, write_once

Kind = Literal["extract", "match"]
UNIT_SECONDS = 600.0
"""About how long a unit takes if their number is not given."""


@dataclass(frozen=True)
class Unit:
    """A unit of a step."""

    name: str
    """Its number in the step, from 0, and a hash of its inputs."""
    items: int
    """Photos or pairs."""
    seconds: float
    """Estimate, on the machine that planned it."""
    bytes: int
    """Estimate of its store."""


@dataclass(frozen=True)
class Step:
    """Units that do not depend on each other. Those of the next step depend on them."""

    number: int
    """From 1."""
    name: str
    """extract-1, match-1, match-2, ..."""
    kind: Kind
    retry: bool
    """Its results replace those of earlier steps."""
    failures: tuple[tuple[str, str, str], ...]
    """What failed before its units: stage, name and reason."""
    units: tuple[Unit, ...]


def count_units(items: int, seconds: float, wanted: int) -> int:
    """Return how many units to cut items into that take so many seconds; `wanted`, if it is not 0."""
    return max(1, min(items, wanted or -(-int(seconds) // int(UNIT_SECONDS))))


def add_step(
    folder: ShardFolder,
    kind: Kind,
    inputs: Sequence[Mapping[str, Any]],
    items: Sequence[int],
    per_item: tuple[float, int],
    *,
    retry: bool = False,
    failures: Sequence[tuple[str, str, str]] = (),
) -> Step:
    """Write the next step, with these inputs of its units. `per_item` are seconds and bytes.

    The step exists from when its list is written, last. Raises WorkspaceError if a file cannot be written.
    """
    steps = read_steps(folder)
    name = f"{kind}-{1 + sum(step.kind == kind for step in steps)}"
    units = []
    for number, (content, count) in enumerate(zip(inputs, items, strict=True)):
        seconds, size = per_item
        unit = Unit(f"{number:05}-{inputs_hash(content)}", count, round(seconds * count, 1), size * count)
        write_once(folder.inputs(name, unit.name), content)
        units.append(unit)
    step = Step(len(steps) + 1, name, kind, retry, tuple(failures), tuple(units))
    write_once(folder.step(name), asdict(step))
    return step


def read_steps(folder: ShardFolder) -> list[Step]:
    """Return all steps in order. Raises InputError if one is damaged."""
    paths = [path for kind in ("extract", "match") for path in folder.root.glob(f"{kind}-*.json")]
    return sorted((_read_step(read_json(path, "step")) for path in paths), key=lambda step: step.number)


def _read_step(content: Json) -> Step:
    units = tuple(Unit(**unit) for unit in content.pop("units"))
    failures = tuple((stage, name, reason) for stage, name, reason in content.pop("failures"))
    return Step(units=units, failures=failures, **content)


def read_inputs(folder: ShardFolder, step: Step, unit: Unit) -> Json:
    """Return what a unit has to do. Raises InputError if its file is missing or not the one that was planned."""
    path = folder.inputs(step.name, unit.name)
    content = read_json(path, "input of the unit")
    if inputs_hash(content) != unit.name.partition("-")[2]:
        raise InputError(f"{path} was changed: restore it, or plan again in another folder")
    return content


def inputs_hash(inputs: Mapping[str, Any]) -> str:
    """A hash of the inputs of a unit, 12 hex digits."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:12]
