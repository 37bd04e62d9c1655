"""The progress of a plan, from its steps, markers and leases alone: anyone can read it at any time."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lgbatch.shards.folder import ShardFolder
from lgbatch.shards.leases import read_holder
from lgbatch.shards.markers import Marker, done_marker
from lgbatch.shards.plan import read_plan
from lgbatch.shards.steps import Step, read_steps
from lgbatch.types import counted
from lgbatch.workspace.folder import Workspace


@dataclass(frozen=True, kw_only=True)
class StepStatus:
    """The progress of a step."""

    step: str
    units: int
    done: int
    claimed: int
    """Units that a worker is doing."""
    open: int
    """Units that nobody is doing."""
    items: int
    """Photos or pairs."""
    items_done: int
    failed: int
    """Photos and pairs that failed in the units that are done."""
    rate: float
    """Photos or pairs per second since its first unit was begun; 0 if no unit is done."""
    seconds_left: float | None
    """Estimate; None if no unit is done and nothing can be told."""
    workers: tuple[str, ...]
    """Machines and processes that are doing units."""

    def format(self) -> str:
        """Format the progress as one line."""
        noun = "photo" if self.step.startswith("extract") else "pair"
        parts = [f"{self.done} of {counted(self.units, 'unit')} done", f"{self.claimed} claimed", f"{self.open} open"]
        parts.append(f"{self.items_done} of {counted(self.items, noun)}")
        parts += [f"{self.failed} failed"] if self.failed else []
        parts += [f"{self.rate:.2f} {noun}s/s"] if self.rate and self.done < self.units else []
        parts += [f"about {self.seconds_left:.0f} s left"] if self.seconds_left else []
        return f"{self.step}: {', '.join(parts)}"


def read_status(out: Path) -> list[StepStatus]:
    """Return the progress of each step so far. Writes nothing. Raises InputError if there is no plan."""
    folder = ShardFolder(Workspace(out))
    read_plan(folder)
    return [_of_step(folder, step) for step in read_steps(folder)]


def _of_step(folder: ShardFolder, step: Step) -> StepStatus:
    markers = {unit.name: marker for unit in step.units if (marker := done_marker(folder, step, unit))}
    open_units = [unit for unit in step.units if unit.name not in markers]
    holders = [read_holder(folder.lease(step.name, unit.name)) for unit in open_units]
    alive = [holder for holder in holders if holder and holder.is_alive(time.time())]
    done = sum(unit.items for unit in step.units if unit.name in markers)
    rate, left = _rate([*markers.values()], done), sum(unit.items for unit in open_units)
    seconds = left / rate if rate else None
    if seconds is None and alive:
        seconds = sum(unit.seconds for unit in open_units) / len(alive)
    return StepStatus(
        step=step.name,
        units=len(step.units),
        done=len(markers),
        claimed=len(alive),
        open=len(open_units) - len(alive),
        items=sum(unit.items for unit in step.units),
        items_done=done,
        failed=sum(len(marker.failures) for marker in markers.values()),
        rate=round(rate, 3),
        seconds_left=None if seconds is None else round(seconds, 1),
        workers=tuple(sorted({f"{holder.host}:{holder.pid}" for holder in alive})),
    )


def _rate(markers: Sequence[Marker], items: int) -> float:
    """Items per second from when the first unit was begun until the last one was done."""
    if not markers:
        return 0.0
    ended = max(marker.began + marker.seconds for marker in markers)
    return items / max(ended - min(marker.began for marker in markers), 1e-3)
