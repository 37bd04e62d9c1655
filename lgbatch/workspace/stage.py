"""The skeleton of a stage, shared by extract, match, import and reconstruct.

run_stage    skip a stage whose inputs and outputs have not changed; else run it, and record failures and result
write_items  the loop of a stage that writes items into a store, with a commit every few seconds

A stage itself plans its items, computes them, and fills in its result.
"""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, Self, TypeVar, get_args

from tqdm import tqdm

from lgbatch.config import Settings, Stage
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import MatchStore
from lgbatch.types import Failure
from lgbatch.workspace.ledger import Ledger
from lgbatch.workspace.signals import deferred
from lgbatch.workspace.stage_cache import StageCache
from lgbatch.workspace.staleness import drop_others

COMMIT_SECONDS = 2.0
"""Seconds between two commits: the most work that a killed run loses."""
_ORDER = get_args(Stage)


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """What a stage returns. Its fields are plain values or dataclasses of them, so that the stage cache can keep it."""

    failures: tuple[Failure, ...] = ()
    finished_already: bool = False
    """The stage was skipped: nothing has changed since an earlier run, which the other fields describe."""

    def as_repeated(self) -> Self:
        """The result as a later run reports it that skips the stage."""
        return replace(self, finished_already=True)


Result = TypeVar("Result", bound=StageResult)
Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class StageRun(Generic[Result]):
    """A stage of one run: what it is made from, and what it leaves."""

    name: Stage
    folder: Path
    """The workspace."""
    settings: Settings
    inputs: Mapping[str, Any]
    """What the result depends on besides the settings, as JSON values: signatures of files, digests, names."""
    outputs: Callable[[], Sequence[Path]]
    """The files and folders that the stage leaves."""
    result: type[Result]
    parts: Mapping[str, type] = field(default_factory=dict)
    """Fields of `result`, besides failures, that are tuples of dataclasses, and the class of their items."""
    reports: frozenset[str] = frozenset()
    """Stages whose failures in the ledger this stage updates."""


class Failures:
    """The failures of a stage in one run, at most one for each item. The ledger records each as it happens."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._found: dict[tuple[str, str], Failure] = {}

    def add(self, failure: Failure, signature: Any = None) -> None:
        """Record the first failure of an item. `signature` is what the item was made from, None if nothing was tried.

        Raises WorkspaceError if the ledger cannot be written.
        """
        if self._found.setdefault((failure.stage, failure.name), failure) is failure:
            self._ledger.add(failure, signature)

    def known(self, stage: str, name: str, signature: Any) -> bool:
        """Whether the item failed before and would fail again. Its failure then counts in this run too."""
        failure = self._ledger.known(stage, name, signature)
        if failure:
            self._found[stage, name] = failure
        return failure is not None

    def of_stages(self, *stages: str) -> set[str]:
        """Names of the items that failed in these stages, as the ledger has them."""
        return set(self._ledger.failed(stages))

    @property
    def full(self) -> bool:
        """Whether --max-errors is exceeded."""
        return self._ledger.full

    def check(self) -> None:
        """Raise LgbatchError if --max-errors is exceeded."""
        self._ledger.check()

    def as_tuple(self) -> tuple[Failure, ...]:
        """All failures, in the order in which they were found."""
        return tuple(self._found.values())


def run_stage(stage: StageRun[Result], work: Callable[[Failures], Result], *, retry_failed: bool = False) -> Result:
    """Run a stage, unless its inputs and outputs are those of an earlier run and no failure is to be retried.

    Raises WorkspaceError if the ledger cannot be read or written, and what `work` raises.
    """
    ledger = Ledger(stage.folder, retry=retry_failed, limit=stage.settings.max_errors)
    cache = StageCache(stage.folder, stage.name, settings=stage.settings.affecting(stage.name), **stage.inputs)
    previous = cache.result(stage.result, failures=Failure, **stage.parts)
    if previous is not None and ledger.settled(previous.failures):
        return previous.as_repeated()
    earlier = _ORDER[: _ORDER.index(stage.name)]
    unchanged = [name for name in cache.unchanged_stages() if name in earlier]
    failures = Failures(ledger)
    result = work(failures)
    if stage.reports:
        ledger.finish(stage.reports, result.failures)
    cache.save(result, stage.outputs(), unchanged)
    return result


def write_items(
    items: Generator[Item, None, None],
    write: Callable[[Item], None],
    store: FeatureStore | MatchStore,
    failures: Failures,
    settings: Settings,
    *,
    total: int,
    stage: str,
    unit: str,
) -> None:
    """Call `write` with each item and commit the store every COMMIT_SECONDS, at the end, and after a signal.

    Stops early once --max-errors is exceeded. At the end, items of other settings are dropped if they were recomputed.
    Raises LgbatchError if --max-errors is exceeded, StoreError if the store cannot be written.
    """
    with deferred(), closing(items):
        committed = time.monotonic()
        for item in tqdm(items, total=total, desc=stage, unit=unit, disable=None):
            write(item)
            if failures.full:
                break
            if time.monotonic() - committed > COMMIT_SECONDS:
                store.commit()
                committed = time.monotonic()
        store.commit()
    failures.check()
    drop_others(store, settings.on_change)
