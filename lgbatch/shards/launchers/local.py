"""Workers of this machine: processes of `lgbatch shard work --claim`, one a GPU, or one for some cores."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lgbatch.config import Settings
from lgbatch.errors import LgbatchError
from lgbatch.runtime.cuda import gpus
from lgbatch.runtime.devices import resolve_device
from lgbatch.runtime.environment import available_cores
from lgbatch.shards.folder import ShardFolder
from lgbatch.shards.launchers.launcher import MOST_TRIES, open_units
from lgbatch.shards.leases import read_holder
from lgbatch.shards.steps import Step, Unit
from lgbatch.workspace.folder import Workspace

_CORES_PER_WORKER = 8
_POLL_SECONDS = 0.1
_STOP_SECONDS = 60.0
"""How long workers get to finish their batch in flight after Ctrl-C."""
_ITEMS_FAILED = 1
"""Exit status of a worker whose units are done, with photos or pairs that failed."""


@dataclass
class LocalLauncher:
    """Starts workers here. One that dies is told, and its unit done again."""

    settings: Settings
    """device and threads; threads are divided among the workers."""
    workers: int = 0
    """Processes; 0: one a GPU, or one for eight cores."""
    models: Path | None = None
    _deaths: Counter[str] = field(default_factory=Counter)

    def run_units(self, out: Path, step: Step, units: Sequence[Unit]) -> None:
        """Do units of a step. Raises LgbatchError if a worker cannot work, or a unit has ended several workers."""
        folder = ShardFolder(Workspace(out))
        count = min(self.workers or self._default_workers(), len(units))
        running = {number: self._start(out, number, count) for number in range(count)}
        try:
            while running:
                time.sleep(_POLL_SECONDS)
                for number, process in list(running.items()):
                    if process.poll() is None:
                        continue
                    del running[number]
                    if process.returncode in (0, _ITEMS_FAILED):
                        continue
                    self._tell_death(folder, step, process)
                    if len(open_units(folder, step)) > len(running):
                        running[number] = self._start(out, number, count)
        finally:
            _stop(running.values())

    def _tell_death(self, folder: ShardFolder, step: Step, process: "subprocess.Popen[bytes]") -> None:
        """Tell that a worker has died. Raises LgbatchError if it said why, or its unit has ended several workers."""
        if process.returncode == 2:  # with a line that says why
            raise LgbatchError(f"a worker could not go on in {step.name}: see its message above")
        status = process.returncode
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        held = [unit.name for unit in step.units if _holds(folder, step, unit, process.pid)]
        for name in held or ["none"]:
            self._deaths[name] += 1
            if self._deaths[name] >= MOST_TRIES:
                raise LgbatchError(
                    f"unit {name} of {step.name} has ended {MOST_TRIES} workers (the last {how}): run it alone with "
                    f"`lgbatch shard work {folder.workspace.root} --unit {int(name.partition('-')[0])} --debug`"
                    if held
                    else f"{MOST_TRIES} workers have ended without a unit (the last {how})"
                )
        unit = f" in unit {held[0]}, which is done again" if held else ""
        print(f"lgbatch: worker {process.pid} {how}{unit}", file=sys.stderr, flush=True)

    def _start(self, out: Path, number: int, count: int) -> "subprocess.Popen[bytes]":
        threads = max(1, (self.settings.threads or available_cores()) // count)
        command = [sys.executable, "-m", "lgbatch", "shard", "work", str(out), "--claim"]
        command += ["--threads", str(threads), "--device", self.settings.device]
        command += ["--models", str(self.models)] if self.models else []
        environment = dict(os.environ)
        if self._uses_gpus():
            visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
            devices = visible or [str(device) for device in range(len(gpus()))]
            environment["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
        return subprocess.Popen(command, env=environment, start_new_session=True)  # Ctrl-C comes from here, once

    def _default_workers(self) -> int:
        return len(gpus()) if self._uses_gpus() else max(1, available_cores() // _CORES_PER_WORKER)

    def _uses_gpus(self) -> bool:
        return resolve_device(self.settings.device)[0] in ("cuda", "tensorrt") and bool(gpus())


def _holds(folder: ShardFolder, step: Step, unit: Unit, pid: int) -> bool:
    holder = read_holder(folder.lease(step.name, unit.name))
    return holder is not None and holder.pid == pid


def _stop(processes: "Iterable[subprocess.Popen[bytes]]") -> None:
    """Let workers finish their batch in flight, and end those that do not."""
    left = [process for process in processes if process.poll() is None]
    for process in left:
        process.terminate()
    deadline = time.monotonic() + _STOP_SECONDS
    for process in left:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
