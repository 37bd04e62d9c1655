"""Workers of a large set and its merges, killed with SIGKILL at random moments; the result is that of one run."""

import os
import random
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from lgbatch.shards.folder import ShardFolder
from lgbatch.shards.launchers.launcher import open_units
from lgbatch.shards.work import current_step
from lgbatch.workspace.folder import Workspace
from tests.torture.harness import budget, contents, scene, stand_in_models
from tests.torture.harness.process import COMMAND

WORKERS, MOST_KILLS = 3, 16
"""Workers at a time, and kills in a step."""
OPTIONS = ("--precision", "fp32", "--threads", "1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, slow stand-in models, and the workspace of one run."""
    folder = tmp_path_factory.mktemp("shard-kills")
    scene.render(folder / "photos", 9)
    models = stand_in_models.write(folder / "models", extractor_work=budget.WORK, matcher_work=budget.WORK // 4)
    command = [*COMMAND, "run", folder / "photos", "-o", folder / "single", "--models", models, *OPTIONS]
    subprocess.run([*map(str, command), "--second-try", "0", "--no-refine"], check=True, stdout=subprocess.DEVNULL)
    return folder


def start(*arguments: object, log: Path | None = None) -> "subprocess.Popen[bytes]":
    command = [*COMMAND, "shard", *map(str, arguments)]
    with Path(log or os.devnull).open("ab") as err:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=err)


def run(*arguments: object) -> None:
    done = subprocess.run([*COMMAND, "shard", *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_nothing_is_lost_and_nothing_is_wrong(folder: Path) -> None:
    rng, kills, sets = random.Random(budget.SEED), Counter[str](), 0
    complete = contents.read(folder / "single")
    while kills.total() < budget.KILLS:
        out = folder / f"out{sets}"
        run("plan", folder / "photos", "-o", out, "--units", "7", "--models", folder / "models", *OPTIONS)
        while not (out / "database.db").exists():
            do_step(out, rng, kills, min(budget.KILLS, kills.total() + MOST_KILLS))
            merge(out, rng, kills)
        run("merge", out)
        wrong = contents.differences(contents.read(out), complete)
        assert not wrong and not (out / "shards" / "log").read_text(), (wrong, (out / "shards" / "log").read_text())
        assert not list(out.glob("shards/*/.*"))  # folders of attempts
        sets += 1
    budget.report(f"kills of shards: {dict(kills)} in {sets} sets, lost 0, wrong 0")


def do_step(out: Path, rng: random.Random, kills: Counter[str], most: int) -> None:
    """Do the units of a step with workers that are killed and started again, and later with others that are not."""
    shards = ShardFolder(Workspace(out))
    step = current_step(shards)
    log = out / "shards" / "log"
    running: list[tuple[subprocess.Popen[bytes], float]] = []
    while open_units(shards, step):
        while len(running) < WORKERS:
            lifetime = rng.uniform(0.4, 4.0) if kills.total() + len(running) < most else 1e9
            running.append((start("work", out, "--claim", "--threads", 1, log=log), time.monotonic() + lifetime))
        time.sleep(0.02)
        for process, end in list(running):
            if process.poll() is None and time.monotonic() > end:
                process.kill()
                kills[step.kind] += 1
            if process.poll() is not None or time.monotonic() > end:
                process.wait()
                running.remove((process, end))
    for process, _ in running:
        process.wait()


def merge(out: Path, rng: random.Random, kills: Counter[str]) -> None:
    """Kill a merge, and repeat it."""
    with start("merge", out) as process:
        try:
            process.wait(rng.uniform(0.5, 2.0))
        except subprocess.TimeoutExpired:
            process.kill()
            kills["merge"] += 1
    run("merge", out)
