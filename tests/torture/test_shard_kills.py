"""Workers of a large set and its merges, killed with SIGKILL at random moments; the result is that of one run."""

import multiprocessing
import random
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lgbatch.cli.main import app
from lgbatch.config import Settings
from lgbatch.shards.folder import ShardFolder
from lgbatch.shards.launchers.launcher import open_units
from lgbatch.shards.leases import read_holder
from lgbatch.shards.merge import merge
from lgbatch.shards.steps import Step
from lgbatch.shards.work import Worker, claim_units, current_step
from lgbatch.workspace.folder import Workspace
from tests.torture.harness import budget, contents, scene, stand_in_models
from tests.torture.harness.process import COMMAND

WORKERS, KILLS_IN_A_STEP, UNIT_SECONDS = 3, 12, 1.0
OPTIONS = ("--precision", "fp32", "--threads", "1")


def work(out: Path) -> None:
    """A worker: what `lgbatch shard work --claim` does, without its start."""
    for _ in claim_units(Worker(out, Settings(threads=1))):
        pass


def start(target: object, out: Path) -> multiprocessing.Process:
    """Start a process that has imported everything already, if the system can fork. Its errors go to a log."""
    process = PROCESSES.Process(target=logged, args=(target, out))
    process.start()
    return process


def logged(target: object, out: Path) -> None:
    sys.stderr = sys.stdout = (out / "log").open("a")
    target(out)  # type: ignore[operator]


PROCESSES = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
if sys.platform == "linux":
    PROCESSES.set_forkserver_preload([__name__])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, slow stand-in models, and the workspace of one run."""
    folder = tmp_path_factory.mktemp("shard-kills")
    scene.render(folder / "photos", 9)
    models = stand_in_models.write(folder / "models", extractor_work=budget.WORK // 2, matcher_work=budget.WORK // 16)
    command = [*COMMAND, "run", folder / "photos", "-o", folder / "single", "--models", models, *OPTIONS]
    subprocess.run([*map(str, command), "--second-try", "0", "--no-refine"], check=True, stdout=subprocess.DEVNULL)
    return folder


@dataclass
class Killer:
    """Starts processes of a set, and kills them."""

    out: Path
    rng: random.Random
    kills: Counter[str] = field(default_factory=Counter)
    running: dict[int, tuple[multiprocessing.Process, float, float]] = field(default_factory=dict)
    """By process id: when it is killed after its start, and after its first claim."""

    def do_step(self, most: int) -> None:
        """Do the units of a step with workers that are killed and started again, and later with others that are not."""
        shards = ShardFolder(Workspace(self.out))
        step = current_step(shards)
        while open_units(shards, step):
            while len(self.running) < WORKERS:
                spared = self.kills.total() >= most
                process = start(work, self.out)
                waits = self.rng.random() < 0.8  # for its first unit
                now, later = time.monotonic() + self.rng.uniform(0, 1), self.rng.uniform(0, UNIT_SECONDS)
                assert process.pid
                self.running[process.pid] = process, 1e9 if spared or waits else now, 1e9 if spared else later
            time.sleep(0.01)
            self._kill(step, self._holders(shards, step))
        for process, *_ in self.running.values():
            process.join()
        self.running.clear()

    def _kill(self, step: Step, holders: set[int]) -> None:
        for pid, (process, at, after_claim) in list(self.running.items()):
            if pid in holders and at == 1e9 != after_claim:
                self.running[pid] = process, time.monotonic() + after_claim, after_claim
            elif process.exitcode is None and time.monotonic() > at:
                process.kill()
                process.join()
                self.kills[step.kind if pid in holders else "start"] += 1
            if process.exitcode is not None:
                del self.running[pid]

    def _holders(self, shards: ShardFolder, step: Step) -> set[int]:
        found = (read_holder(shards.lease(step.name, unit.name)) for unit in step.units)
        return {holder.pid for holder in found if holder}

    def merge(self) -> None:
        """Kill a merge, and repeat it."""
        process = start(merge, self.out)
        process.join(self.rng.uniform(0, 0.5))
        if process.exitcode is None:
            process.kill()
            self.kills["merge"] += 1
        process.join()
        merge(self.out)


def test_nothing_is_lost_and_nothing_is_wrong(folder: Path) -> None:
    rng, kills, sets = random.Random(budget.SEED), Counter[str](), 0
    complete = contents.read(folder / "single")
    while kills.total() < budget.KILLS:
        killer = Killer(folder / f"out{sets}", rng)
        arguments = ("shard", "plan", folder / "photos", "-o", killer.out, "--units", "7", *OPTIONS)
        app([*map(str, arguments), "--models", str(folder / "models")], standalone_mode=False)
        while not (killer.out / "database.db").exists():
            left = budget.KILLS - kills.total()
            killer.do_step(min(left, killer.kills.total() + KILLS_IN_A_STEP))
            killer.merge()
        assert merge(killer.out).finished
        log = (killer.out / "log").read_text()
        wrong = contents.differences(contents.read(killer.out), complete)
        assert not wrong and "Error" not in log, (wrong, log)
        assert not list(killer.out.glob("shards/*/.*"))  # folders of attempts
        kills, sets = kills + killer.kills, sets + 1
    budget.report(f"kills of shards: {dict(kills)} in {sets} sets, lost 0, wrong 0")
