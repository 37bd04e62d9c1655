"""Job arrays of SLURM: one task a unit, and a job after them that merges the step and submits the next one.

Nothing waits for the jobs: pairs of the next round are known after a merge, so that each merge submits what follows.
The jobs are plain scripts in OUT/shards/slurm/, which `sbatch` can also be given by hand.
"""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from lgbatch.config import Settings
from lgbatch.errors import InputError, LgbatchError, WorkspaceError
from lgbatch.shards.folder import ShardFolder
from lgbatch.shards.launchers.launcher import MOST_TRIES, open_units
from lgbatch.shards.merge import Merged, merge
from lgbatch.shards.steps import Step, Unit
from lgbatch.shards.work import current_step
from lgbatch.storage.durable import replace_synced
from lgbatch.workspace.folder import Workspace

_TRY = "LGBATCH_SLURM_TRY"
"""Environment variable of the job that merges: how often the units of its step have been submitted."""
_MOST_TASKS = 1000
"""Tasks of an array: clusters allow 1001 by default (MaxArraySize)."""
_SCRIPT = """#!/bin/sh
# sbatch {options}
{command}
status=$?
[ "$status" -eq 1 ] && exit 0  # photos or pairs have failed, not the job: `lgbatch errors` lists them
exit "$status"
"""


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """The jobs of a step."""

    step: str
    units: int
    arrays: tuple[str, ...]
    """Ids of the job arrays."""
    merge_job: str
    """Id of the job that merges, and goes on."""
    logs: str
    """Folder of the scripts and logs."""


@dataclass(frozen=True)
class SlurmJobs:
    """Submits the jobs of a plan."""

    settings: Settings
    """device and threads; threads 0: the cores that SLURM gives a task."""
    workers: int = 0
    """Units that run at the same time; 0: as many as SLURM allows."""
    models: Path | None = None
    options: str = ""
    """Options of sbatch for all jobs, as on a command line."""

    def submit(self, out: Path, tell: Callable[[Merged], None]) -> Submitted | None:
        """Submit the open units of the current step, and the job that merges them. That job calls this again.

        In that job, merge first; `tell` is called after it. Returns None at the end of the plan. Raises LgbatchError as
        `merge`, if sbatch is missing or refuses a job, or units are not done after some tries.
        """
        folder, tries = ShardFolder(Workspace(out.resolve())), int(os.environ.get(_TRY, "0"))
        if tries:
            merged = merge(folder.workspace.root)
            tell(merged)
            if merged.finished:
                return None
            if merged.missing and tries >= MOST_TRIES:
                raise LgbatchError(
                    f"{merged.missing[0]} is not done after {tries} tries: see the logs in {_scripts(folder)}"
                )
            tries = tries if merged.missing else 0
        step = current_step(folder)
        units = open_units(folder, step)
        arrays: list[str] = []
        for numbers in _blocks([*map(_number, units)]):
            arrays.append(self._submit_array(folder, step, numbers, arrays))
        command = f"export {_TRY}={tries + 1}\n{self._command('run', folder)} --on slurm --workers {self.workers}"
        command += f" --sbatch={shlex.quote(self.options)}"
        after = [f"--dependency=afterany:{':'.join(arrays)}"] if arrays else []
        merge_job = _sbatch(folder, f"{step.name}-merge", command, [*after, *self._options()])
        return Submitted(
            step=step.name,
            units=len(units),
            arrays=tuple(arrays),
            merge_job=merge_job,
            logs=str(_scripts(folder)),
        )

    def _submit_array(self, folder: ShardFolder, step: Step, numbers: Sequence[int], before: Sequence[str]) -> str:
        """Submit units of one block of numbers. Returns the id of the array."""
        block = numbers[0] // _MOST_TASKS
        limit = f"%{self.workers}" if self.workers else ""
        options = [f"--array={_ranges([number % _MOST_TASKS for number in numbers])}{limit}"]
        if self.workers and before:  # the limit counts for each array alone
            options.append(f"--dependency=afterany:{before[-1]}")
        unit = f'"$(({block * _MOST_TASKS} + SLURM_ARRAY_TASK_ID))"' if block else '"$SLURM_ARRAY_TASK_ID"'
        command = f"{self._command('work', folder)} --unit {unit}"
        return _sbatch(folder, f"{step.name}-{block}" if block else step.name, command, [*options, *self._options()])

    def _command(self, name: str, folder: ShardFolder) -> str:
        command = [sys.executable, "-m", "lgbatch", "shard", name, str(folder.workspace.root)]
        command += ["--device", self.settings.device, "--threads", str(self.settings.threads)]
        command += ["--models", str(self.models.resolve())] if self.models else []
        return shlex.join(command)

    def _options(self) -> list[str]:
        try:
            return shlex.split(self.options)
        except ValueError as error:
            raise InputError(f"--sbatch {self.options}: {error}") from None


def _sbatch(folder: ShardFolder, name: str, command: str, options: Sequence[str]) -> str:
    """Write the script of a job and submit it. Returns its id. Raises LgbatchError if it is not submitted."""
    scripts = _scripts(folder)
    script, array = scripts / f"{name}.sh", any(option.startswith("--array=") for option in options)
    log = scripts / ("%x-%A-%a.log" if array else "%x-%j.log")
    arguments = ["--parsable", f"--job-name=lgbatch-{name}", f"--output={log}", *options]
    try:
        scripts.mkdir(exist_ok=True)
        replace_synced(script, _SCRIPT.format(options=shlex.join(arguments), command=command).encode())
    except OSError as error:
        raise WorkspaceError(f"cannot write {script}: {error.strerror}") from None
    try:
        done = subprocess.run(["sbatch", *arguments, str(script)], capture_output=True, text=True)
    except OSError:
        raise LgbatchError("there is no `sbatch`: run this where jobs of SLURM are submitted") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise LgbatchError(f"sbatch has refused {script}: {lines[-1]}; run the same command again when that is solved")
    return done.stdout.strip().partition(";")[0]


def _scripts(folder: ShardFolder) -> Path:
    return folder.root / "slurm"


def _number(unit: Unit) -> int:
    return int(unit.name.partition("-")[0])


def _blocks(numbers: Sequence[int]) -> list[list[int]]:
    """The numbers below 1000, then those below 2000, and so on."""
    return [list(block) for _, block in groupby(numbers, lambda number: number // _MOST_TASKS)]


def _ranges(numbers: Sequence[int]) -> str:
    """Rising numbers as SLURM writes them: 0-3,5."""
    runs = groupby(enumerate(numbers), lambda item: item[1] - item[0])
    ends = [(run[0][1], run[-1][1]) for run in (list(found) for _, found in runs)]
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ends)
