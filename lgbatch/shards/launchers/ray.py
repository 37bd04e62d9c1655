"""Workers of a Ray cluster, or of a Ray that is started here: actors that open their models once, for all their units.

Ray starts actors, and repeats the unit of one that has died. Results come by files, not through Ray.
"""

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lgbatch.config import Settings
from lgbatch.errors import LgbatchError
from lgbatch.shards.launchers.launcher import MOST_TRIES
from lgbatch.shards.steps import Step, Unit
from lgbatch.shards.work import Worker

_CORES_PER_WORKER = 8


class UnitActor:
    """Does units in a process of Ray."""

    def __init__(self, out: str, settings: Settings, models: str | None) -> None:
        """Work for the plan of a workspace, with settings and models as in `Worker`."""
        self._out, self._settings, self._models = Path(out), settings, Path(models) if models else None
        self._worker: Worker | None = None

    def start(self) -> str:
        """Read the plan. Returns why it cannot be read; empty if all is well."""
        try:
            self._worker = self._worker or Worker(self._out, self._settings, self._models)
        except LgbatchError as error:
            return str(error)
        return ""

    def do_unit(self, step: Step, unit: Unit) -> str:
        """Do a unit. Returns why it cannot be done; empty if it is done."""
        if reason := self.start():
            return reason
        assert self._worker
        try:
            self._worker.do_unit(step, unit)
        except LgbatchError as error:
            return str(error)
        return ""


@dataclass
class RayLauncher:
    """Has units done by actors, which live until the launcher is closed."""

    ray: Any
    """The module, connected."""
    settings: Settings
    """device and threads; threads 0: the cores of a GPU's share of its machine, or eight."""
    workers: int = 0
    """Actors; 0: one a GPU of the cluster, or one for eight cores."""
    models: Path | None = None
    _actors: list[Any] = field(default_factory=list)

    def run_units(self, out: Path, step: Step, units: Sequence[Unit]) -> None:
        """Do units of a step. Raises LgbatchError if a worker cannot work, or a unit has ended several workers.

        An actor gets its first unit when it has started: those that the cluster has no room for are not waited for.
        """
        for _ in range(len(self._actors), min(self.workers or self._room(), len(units))):
            self._actors.append(self._start(out))
        waiting, running = deque(units), {actor.start.remote(): (actor, "") for actor in self._actors}
        while waiting or any(name for _, name in running.values()):
            (done,), _ = self.ray.wait([*running])
            actor, name = running.pop(done)
            self._check(done, step, name, out)
            if waiting:
                unit = waiting.popleft()
                running[actor.do_unit.remote(step, unit)] = actor, unit.name

    def _check(self, done: Any, step: Step, unit: str, out: Path) -> None:
        """Raise LgbatchError if an actor has failed. `unit` is its unit; empty if it has just started."""
        try:
            reason = self.ray.get(done)
        except self.ray.exceptions.RayError as error:
            line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            what = f"unit {unit} of {step.name} has ended {MOST_TRIES} workers" if unit else "a worker cannot start"
            advice = f": run `lgbatch shard work {out} --unit {int(unit.partition('-')[0])} --debug`" if unit else ""
            raise LgbatchError(f"{what} ({line}){advice}") from None
        if reason:
            raise LgbatchError(f"a worker could not go on in {step.name}: {reason}")

    def _start(self, out: Path) -> Any:
        needs = {"num_gpus": 1} if self._gpus() else {}
        threads = self._threads()
        actor = self.ray.remote(num_cpus=threads, max_restarts=-1, max_task_retries=MOST_TRIES - 1, **needs)(UnitActor)
        models = str(self.models.resolve()) if self.models else None
        return actor.remote(str(out.resolve()), replace(self.settings, threads=threads), models)

    def _room(self) -> int:
        """How many actors the cluster has room for."""
        return self._gpus() or max(1, sum(cores // self._threads() for cores, _ in self._nodes()))

    def _threads(self) -> int:
        if self.settings.threads:
            return self.settings.threads
        if self._gpus():
            return max(1, min(cores // gpus for cores, gpus in self._nodes() if gpus))
        cores = [cores for cores, _ in self._nodes()]
        return max(1, min(_CORES_PER_WORKER, max(cores), sum(cores) // (self.workers or 1)))

    def _gpus(self) -> int:
        return 0 if self.settings.device == "cpu" else sum(gpus for _, gpus in self._nodes())

    def _nodes(self) -> list[tuple[int, int]]:
        """CPUs and GPUs of each machine."""
        resources = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        return [(int(found.get("CPU", 0)), int(found.get("GPU", 0))) for found in resources]


@contextmanager
def ray_launcher(
    settings: Settings, workers: int = 0, models: Path | None = None, address: str | None = None
) -> Iterator[RayLauncher]:
    """A launcher that is connected to the cluster at an address, such as 10.0.0.1:6379; None: started on this machine.

    Raises LgbatchError if Ray is not installed or there is no such cluster.
    """
    try:
        import ray
    except ImportError:
        raise LgbatchError("Ray is not installed: run `pip install 'lgbatch[ray]'`") from None
    try:
        ray.init(address or "local", logging_level=logging.WARNING, log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = f"connect to {address}" if address else "start Ray"
        raise LgbatchError(f"cannot {where}: {str(error).strip().splitlines()[0]}") from None
    try:
        yield RayLauncher(ray, settings, workers, models)
    finally:
        ray.shutdown()
