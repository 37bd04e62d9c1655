"""The skeleton of a stage, shared by extract, match, import and reconstruct.

run_stage    skip the stage if its inputs and outputs have not changed; otherwise run it, record failures and result
write_items  write items into a store, with a commit every few seconds
drop_stale_items  remove what a finished stage has not written anew

A stage plans its items, computes them and returns its result.
"""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, Self, TypeVar, get_args

from lgbatch.config import Settings, Stage
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import MatchStore
from lgbatch.types import Failure
from lgbatch.workspace.ledger import Ledger
from lgbatch.workspace.progress import track
from lgbatch.workspace.signals import deferred
from lgbatch.workspace.stage_cache import StageCache
from lgbatch.workspace.staleness import drop_outdated

COMMIT_SECONDS = 2.0
"""Seconds between commits. A killed run loses at most the work of this time."""
_ORDER = get_args(Stage)


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """Base class of stage results. Fields are plain values or dataclasses of them, as the stage cache requires."""

    failures: tuple[Failure, ...] = ()
    finished_already: bool = False
    """The stage was skipped because nothing has changed since an earlier run, which the other fields describe."""

    def as_repeated(self) -> Self:
        """Return the result that a later run reports if it skips the stage."""
        return replace(self, finished_already=True)


Result = TypeVar("Result", bound=StageResult)
Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class StageRun(Generic[Result]):
    """A stage of one run: its inputs and its outputs."""

    name: Stage
    folder: Path
    """The workspace."""
    settings: Settings
    inputs: Mapping[str, Any]
    """What the result depends on besides the settings, as JSON values: file signatures, digests, names."""
    outputs: Callable[[], Sequence[Path]]
    """Returns the files and folders that the stage writes."""
    result: type[Result]
    parts: Mapping[str, type] = field(default_factory=dict)
    """Fields of `result`, besides failures, that hold tuples of dataclasses, with the class of their items."""
    paths: Mapping[str, Path] = field(default_factory=dict)
    """Files and folders of the user, by name, that are recorded for the command that repeats the run (rerun.py)."""
    reports: frozenset[str] = frozenset()
    """Stages whose entries in the ledger this stage replaces when it finishes."""


class Failures:
    """The failures of a stage in one run, at most one per item. Each is written to the ledger immediately."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._failures: dict[tuple[str, str], Failure] = {}

    def add(self, failure: Failure, signature: Any = None) -> None:
        """Record the first failure of an item. `signature` identifies the item's inputs; None if it has none.

        Raises WorkspaceError if the ledger cannot be written.
        """
        if self._failures.setdefault((failure.stage, failure.name), failure) is failure:
            self._ledger.add(failure, signature)

    def known(self, stage: str, name: str, signature: Any) -> bool:
        """Whether the item failed before with the same inputs. If so, its failure is one of this run too."""
        failure = self._ledger.known(stage, name, signature)
        if failure:
            self._failures[stage, name] = failure
        return failure is not None

    def of_stages(self, *stages: str) -> set[str]:
        """Return the names of the items that failed in these stages, from the ledger."""
        return self._ledger.failed_items(stages)

    @property
    def full(self) -> bool:
        """Whether --max-errors is exceeded."""
        return self._ledger.limit_exceeded

    def check(self) -> None:
        """Raise LgbatchError if --max-errors is exceeded."""
        self._ledger.check_limit()

    def as_tuple(self) -> tuple[Failure, ...]:
        """Return all failures, oldest first."""
        return tuple(self._failures.values())


def run_stage(stage: StageRun[Result], work: Callable[[Failures], Result], *, retry_failed: bool = False) -> Result:
    """Run a stage, unless its inputs and outputs are unchanged since an earlier run and no failure is to be retried.

    Raises WorkspaceError if the ledger cannot be read or written, and what `work` raises.
    """
    ledger = Ledger(stage.folder, retry=retry_failed, limit=stage.settings.max_errors)
    cache = _cache(stage)
    previous = _finished(stage, cache, ledger)
    if previous is not None:
        cache.record_given()
        return previous.as_repeated()
    earlier = _ORDER[: _ORDER.index(stage.name)]
    unchanged = [name for name in cache.unchanged_stages() if name in earlier]
    failures = Failures(ledger)
    result = work(failures)
    if stage.reports:
        ledger.finish(stage.reports, result.failures)
    cache.save(result, stage.outputs(), unchanged)
    return result


def is_finished(stage: StageRun[Any], *, retry_failed: bool = False) -> bool:
    """Whether run_stage would skip the stage. Raises WorkspaceError if the ledger cannot be read."""
    ledger = Ledger(stage.folder, retry=retry_failed, limit=stage.settings.max_errors)
    return _finished(stage, _cache(stage), ledger) is not None


def _cache(stage: StageRun[Any]) -> StageCache:
    settings, affecting = stage.settings.used_by(stage.name), stage.settings.affecting(stage.name)
    return StageCache(
        stage.folder,
        stage.name,
        paths=stage.paths,
        other_settings={name: value for name, value in settings.items() if name not in affecting},
        settings=affecting,
        **stage.inputs,
    )


def _finished(stage: StageRun[Result], cache: StageCache, ledger: Ledger) -> Result | None:
    """The result of an earlier run that still holds, if there is one."""
    previous = cache.result(stage.result, failures=Failure, **stage.parts)
    return previous if previous is not None and ledger.holds_all(previous.failures) else None


def item_settings(settings: Settings, stage: Stage) -> dict[str, Any]:
    """Return the settings on which it depends whether an item of a stage fails."""
    return {name: value for name, value in settings.affecting(stage).items() if name != "on_change"}


def write_items(
    items: Generator[Item, None, None],
    write: Callable[[Item], None],
    store: FeatureStore | MatchStore,
    failures: Failures,
    *,
    total: int,
    stage: str,
    unit: str,
) -> None:
    """Call `write` with each item and commit the store every COMMIT_SECONDS, at the end, and after a signal.

    Stops early if --max-errors is exceeded.

    Raises LgbatchError if --max-errors is exceeded, StoreError if the store cannot be written, and Interrupted after a
    signal.
    """
    with deferred(), closing(items):
        committed = time.monotonic()
        for item in track(items, stage, total=total, unit=unit):
            write(item)
            if failures.full:
                break
            if time.monotonic() - committed > COMMIT_SECONDS:
                store.commit()
                committed = time.monotonic()
        store.commit()
    failures.check()


def drop_stale_items(store: FeatureStore | MatchStore, failures: Failures, settings: Settings) -> None:
    """With `--on-change recompute`, remove the outdated items that were not written anew.

    Those of images and pairs that failed stay.
    """
    drop_outdated(store, settings.on_change, {failure.name for failure in failures.as_tuple()})
