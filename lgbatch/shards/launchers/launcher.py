"""What a launcher is, and the run of a plan with one: a step, its merge, the next step, until the end."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from lgbatch.errors import LgbatchError
from lgbatch.shards.folder import ShardFolder
from lgbatch.shards.leases import file_time, read_holder
from lgbatch.shards.markers import done_marker
from lgbatch.shards.merge import Merged, merge
from lgbatch.shards.plan import read_plan
from lgbatch.shards.steps import Step, Unit
from lgbatch.shards.work import current_step
from lgbatch.types import counted
from lgbatch.workspace.folder import Workspace
from lgbatch.workspace.lock import locked

MOST_TRIES = 3
"""How often a unit may end its worker, or come out damaged, before the run stops."""
_POLL_SECONDS = 1.0


class Launcher(Protocol):
    """Has the units of a step done."""

    def run_units(self, out: Path, step: Step, units: list[Unit]) -> None:
        """Do these units of a step, and return when they are done or cannot be done now.

        Markers tell which are done. Raises LgbatchError if it makes no sense to go on: a missing model, a full disk.
        """
        ...


def run_plan(out: Path, launcher: Launcher, tell: Callable[[Merged], None]) -> Merged:
    """Do all steps of a plan with a launcher, and merge each. `tell` is called after each merge.

    Waits for units that workers of others are doing, and for another command that uses the workspace: several runs of
    one plan share its units, and one of them merges a step.

    Raises LgbatchError as `merge` and the launcher, and if units of a step are not done after some tries.
    """
    folder, tries = ShardFolder(Workspace(out)), 0
    read_plan(folder)
    while True:
        step = current_step(folder)
        if units := open_units(folder, step):
            launcher.run_units(out, step, units)
            _wait_for_others(folder, step)
        with locked(out, waiting=_tell):
            if current_step(folder).name != step.name:  # another run has merged it
                continue
            merged = merge(out)
        tell(merged)
        if merged.finished:
            return merged
        tries = tries + 1 if merged.missing else 0
        if tries == MOST_TRIES:
            raise LgbatchError(f"{merged.missing[0]} is not done after {tries} tries: run its unit alone to see why")


def open_units(folder: ShardFolder, step: Step) -> list[Unit]:
    """The units of a step that are not done."""
    return [unit for unit in step.units if not done_marker(folder, step, unit)]


def _wait_for_others(folder: ShardFolder, step: Step) -> None:
    """Wait until nobody holds a lease of a unit that is not done. The own workers have ended."""
    is_told = False
    while busy := _others(folder, step):
        if not is_told:
            _tell(f"waiting for {counted(len(busy), 'unit')} of workers on {', '.join(sorted(set(busy)))}")
        is_told = True
        time.sleep(_POLL_SECONDS)


def _tell(line: str) -> None:
    print(f"lgbatch: {line}", file=sys.stderr, flush=True)


def _others(folder: ShardFolder, step: Step) -> list[str]:
    """The hosts of those who do units."""
    units, now = open_units(folder, step), file_time(folder.results(step.name))
    holders = (read_holder(folder.lease(step.name, unit.name)) for unit in units)
    return [holder.host for holder in holders if holder and holder.is_alive(now)]
