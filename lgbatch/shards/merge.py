"""Merge the units of a step into the workspace, and plan the next step, until the database is written.

What comes next depends on the files alone: a merge that was killed is repeated, and one that is repeated changes
nothing.
"""

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lgbatch.colmap.import_stores import import_stores
from lgbatch.errors import InputError, WorkspaceError
from lgbatch.shards.folder import ShardFolder
from lgbatch.shards.markers import Marker, damage, done_marker, read_marker
from lgbatch.shards.matching import WantedPairs, add_matching, planned_pairs
from lgbatch.shards.plan import Plan, add_extraction, read_plan
from lgbatch.shards.steps import Step, Unit, read_inputs, read_steps
from lgbatch.shards.units.pairs import pairs_of
from lgbatch.shards.units.photos import as_ref, photos_of, planned
from lgbatch.shards.work import remove_abandoned
from lgbatch.storage.durable import replace_synced
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.joining.join import join
from lgbatch.storage.matches import MatchStore
from lgbatch.types import Failure, Pair, PairList
from lgbatch.workspace.folder import Workspace
from lgbatch.workspace.ledger import Ledger
from lgbatch.workspace.lock import locked
from lgbatch.workspace.rerun import Rerun
from lgbatch.workspace.stage_cache import digest, signature

_STAGES = ("crawl", "extract", "pairs", "match")


@dataclass(frozen=True, kw_only=True)
class Merged:
    """What a merge has done."""

    step: str
    """The step that was to be merged."""
    missing: tuple[str, ...] = ()
    """Its units that are not done. If there is one, nothing was merged."""
    damaged: tuple[str, ...] = ()
    """Units whose result is damaged, each with the reason. They count as not done."""
    failures: int = 0
    """Photos and pairs that failed so far."""
    next_step: str = ""
    """The step that was planned; empty if there is none left."""
    next_units: int = 0
    finished: bool = False
    """The database is written: the workspace is that of a single run."""
    images: int = 0
    """Images of the database."""
    pairs: int = 0
    """Pairs that were matched."""
    command: str = ""
    """The command that maps the images, with the settings of the plan; empty before the database is written."""


def merge(out: Path) -> Merged:
    """Merge the units of the last step, if all are done, and plan the next one or write the database.

    A workspace that was finished from the same results stays as it is, with what `lgbatch run` has added to it since.
    Units whose store does not have the hash of its marker lose the marker, so that they are done again. Photos and
    pairs that failed are recorded in errors.jsonl.

    Raises InputError if there is no plan, or no photo could be extracted, LgbatchError as join and import_stores, and
    if more photos and pairs have failed than --max-errors allows.
    """
    folder = ShardFolder(Workspace(out))
    plan = read_plan(folder)
    with locked(out):
        steps = read_steps(folder)
        if not steps:
            raise InputError(f"{folder.root} has no step: run `lgbatch shard plan` again")
        for step in steps:
            remove_abandoned(folder, step)
        last = steps[-1]
        damaged = _check(folder, [last])
        if missing := _missing(folder, steps):
            return Merged(step=last.name, missing=missing, damaged=damaged)
        made_from = _results_digest(folder, steps)
        if finished := _finished(folder, plan, made_from):
            return replace(finished, damaged=damaged)
        ledger = Ledger(out, limit=plan.settings.max_errors)
        _record(folder, steps, ledger)
        ledger.check_limit()
        names = _names(folder, steps, ledger)
        if last.kind == "extract" or not _has_features(folder.workspace.features, names):
            _join(folder, steps, "extract", folder.workspace.features)
        merged = _go_on(folder, plan, steps, names, Merged(step=last.name, damaged=damaged))
        if merged.finished:
            _keep(folder, made_from, merged)
        return merged


def plan_retry(out: Path) -> list[Step]:
    """Plan steps with the photos and pairs that failed alone. Returns none if nothing failed.

    Raises InputError if a unit is not done yet.
    """
    folder = ShardFolder(Workspace(out))
    plan = read_plan(folder)
    with locked(out):
        steps = read_steps(folder)
        if missing := _missing(folder, steps):
            raise InputError(f"unit {missing[0]} is not done yet: finish the units, and merge them, before a retry")
        ledger, added = Ledger(out), []
        if photos := ledger.failed_items(("extract",)):
            known = {
                photo.name: photo
                for step in steps
                for unit in step.units
                if step.kind == "extract"
                for photo in photos_of(read_inputs(folder, step, unit))
            }
            refs = [planned(as_ref(known[name], plan.photos)) for name in sorted(photos & known.keys())]
            if refs:
                added.append(add_extraction(folder, plan, refs, (_per_item(steps[0]), 0), retry=True))
        if failed := ledger.failed_items(("match",)):
            pairs = [
                pair
                for listed in planned_pairs(folder)
                for pair in listed
                if " ".join(pair) in failed or failed & set(pair)
            ]
            if pairs:
                names = _names(folder, steps, ledger)
                added.append(add_matching(folder, plan, names, PairList.of(dict.fromkeys(pairs)), retry=True))
        return added


def _go_on(folder: ShardFolder, plan: Plan, steps: Sequence[Step], names: Sequence[str], merged: Merged) -> Merged:
    """Plan the next step, or finish the workspace."""
    workspace = folder.workspace
    ledger = Ledger(workspace.root)
    if not names:
        first = ledger.entries()[0]
        raise InputError(f"no photo can be extracted ({first.name}: {first.reason}): `lgbatch errors` lists all")
    wanted = WantedPairs(folder, plan, names, ledger.failed_items(("crawl", "extract")))
    if wanted.missing:
        step = add_matching(folder, plan, names, wanted.missing)
        return replace(
            merged, failures=len(ledger.entries()), next_step=step.name, next_units=len(step.units), images=len(names)
        )
    if damaged := _check(folder, steps[:-1]):
        return replace(merged, missing=_missing(folder, steps), damaged=(*merged.damaged, *damaged))
    if any(step.kind == "match" for step in steps):
        _join(folder, steps, "match", workspace.matches, names)
    elif not workspace.matches.exists():
        MatchStore(workspace.matches, append={}).close()
    wanted.write()
    if wanted.listed:
        for failure in (*wanted.listed.failures, *wanted.listed.unknown):
            ledger.add(failure)
    failed = ledger.failed_items(("match",))
    usable = [name for name in names if name not in failed]
    import_stores(workspace, plan.photos, usable, plan.pairs or workspace.pairs, plan.settings)
    pairs = sum(unit.items for step in steps if step.kind == "match" and not step.retry for unit in step.units)
    return replace(
        merged,
        failures=len(ledger.entries()),
        finished=True,
        images=len(usable),
        pairs=pairs,
        command=_mapping(plan, workspace.root),
    )


def _mapping(plan: Plan, out: Path) -> str:
    """The command that maps the images."""
    return Rerun(
        settings=plan.settings, photos=plan.photos, workspace=out, models=plan.models, pairs=plan.pairs
    ).command()


def _results_digest(folder: ShardFolder, steps: Sequence[Step]) -> str:
    """A digest of the results of all units, which are done."""
    markers = [_marker(folder, step, unit) for step in steps for unit in step.units]
    return digest([[marker.unit, marker.sha256, [entry["name"] for entry in marker.failures]] for marker in markers])


def _finished(folder: ShardFolder, plan: Plan, made_from: str) -> Merged | None:
    """What the merge of these results has done, if its files are there; None if it is to be done."""
    workspace = folder.workspace
    if not all(path.exists() for path in (workspace.features, workspace.matches, workspace.database)):
        return None
    try:
        content = json.loads(folder.merged.read_bytes())
        return (
            Merged(
                **content["merged"] | {"missing": (), "damaged": (), "command": _mapping(plan, folder.workspace.root)}
            )
            if content["made_from"] == made_from
            else None
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _keep(folder: ShardFolder, made_from: str, merged: Merged) -> None:
    """Record that the workspace is finished. Write errors are ignored: the merge is then done again."""
    content = {"made_from": made_from, "merged": asdict(merged)}
    with suppress(OSError):
        replace_synced(folder.merged, json.dumps(content).encode())


def _check(folder: ShardFolder, steps: Iterable[Step]) -> tuple[str, ...]:
    """Check the hash of each store of these steps. Removes the markers of those that are damaged, and tells why."""
    damaged = []
    for step in steps:
        for unit in step.units:
            marker = folder.marker(step.name, unit.name)
            if marker.exists() and (reason := damage(folder, step, unit)):
                try:
                    marker.unlink(missing_ok=True)
                except OSError as error:
                    raise WorkspaceError(f"cannot remove {marker}: {error.strerror}") from None
                damaged.append(f"{step.name} {unit.name}: {reason}")
    return tuple(damaged)


def _missing(folder: ShardFolder, steps: Iterable[Step]) -> tuple[str, ...]:
    return tuple(
        f"{step.name} {unit.name}" for step in steps for unit in step.units if not done_marker(folder, step, unit)
    )


def _record(folder: ShardFolder, steps: Sequence[Step], ledger: Ledger) -> None:
    """Make the ledger hold what failed in the units. An item that a later step has tried again is as that step says."""
    failed: dict[tuple[str, str], tuple[Failure, Any]] = {}
    features = signature(folder.workspace.features)
    for step in steps:
        for stage, name, reason in step.failures:
            failed[stage, name] = Failure(stage, name, reason), None
        for unit in step.units:
            for key in _tried(folder, step, unit) if step.retry else ():
                failed.pop(key, None)
            for entry in _marker(folder, step, unit).failures:
                inputs = entry["signature"]
                if entry["stage"] == "match" and inputs:
                    inputs = inputs | {"features": features}
                key = entry["stage"], entry["name"]
                failed[key] = Failure(*key, entry["reason"], entry["traceback"]), inputs
    for failure, inputs in failed.values():
        ledger.add(failure, inputs)
    known = {(entry.stage, entry.name) for entry in ledger.entries() if entry.stage in ("crawl", "extract", "match")}
    if known - failed.keys():
        others = [entry.failure() for entry in ledger.entries() if entry.stage == "pairs"]
        ledger.finish(_STAGES, [*(failure for failure, _ in failed.values()), *others])


def _tried(folder: ShardFolder, step: Step, unit: Unit) -> list[tuple[str, str]]:
    """The items of a unit, by stage and name."""
    inputs = read_inputs(folder, step, unit)
    if step.kind == "extract":
        return [("extract", photo.name) for photo in photos_of(inputs)]
    pairs: list[Pair] = pairs_of(inputs)
    return [("match", name) for name in {*map(" ".join, pairs), *(name for pair in pairs for name in pair)}]


def _marker(folder: ShardFolder, step: Step, unit: Unit) -> Marker:
    marker = read_marker(folder.marker(step.name, unit.name))
    if marker is None:
        raise WorkspaceError(f"the marker of unit {unit.name} has gone: run `lgbatch shard work` again")
    return marker


def _join(folder: ShardFolder, steps: Sequence[Step], kind: str, target: Path, names: Sequence[str] = ()) -> None:
    shards: dict[bool, list[Path]] = {False: [], True: []}
    for step in steps:
        if step.kind == kind:
            shards[step.retry] += [folder.shard(step.name, unit.name) for unit in step.units]
    join(target, shards[False], replacing=shards[True], names=names)


def _has_features(path: Path, names: Sequence[str]) -> bool:
    """Whether the store has all these photos: `lgbatch remove` may have been there."""
    if not path.exists():
        return False
    with FeatureStore(path) as store:
        return set(names).issubset(store.names())


def _names(folder: ShardFolder, steps: Sequence[Step], ledger: Ledger) -> list[str]:
    """The photos with features, in order."""
    failed = ledger.failed_items(("extract",))
    units = [(step, unit) for step in steps if step.kind == "extract" and not step.retry for unit in step.units]
    photos = [photo.name for step, unit in units for photo in photos_of(read_inputs(folder, step, unit))]
    return [name for name in photos if name not in failed]


def _per_item(step: Step) -> float:
    return step.units[0].seconds / step.units[0].items
