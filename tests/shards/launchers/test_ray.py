"""`lgbatch shard run --on ray`: actors of a cluster, and of a Ray that is started here."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lgbatch.shards.leases import read_holder
from tests.shards.helpers import Set, differences
from tests.shards.test_local import COMMAND, shard
from tests.torture.harness import stand_in_models


@pytest.fixture
def address() -> Iterator[str]:
    """The address of a cluster with two CPUs, in processes of this machine."""
    start = ["start", "--head", "--port=0", "--num-cpus=2", "--include-dashboard=false", "--block"]
    command = [sys.executable, "-m", "ray.scripts.scripts", *start]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield next(line.split("'")[1] for line in process.stdout if "--address='" in line)
        finally:
            process.terminate()


@pytest.mark.slow
def test_units_on_a_cluster_are_one_run(planned: Set, single: Path, address: str) -> None:
    pytest.importorskip("ray")
    planned.plan()
    printed = shard("run", planned.out, "--on", "ray", "--address", address, "--workers", 2, "--threads", 1)
    assert "next: match-1, 7 units" in printed and "finished: 9 images, 36 pairs" in printed
    assert differences(planned.out, single) == []


@pytest.mark.slow
def test_the_unit_of_a_killed_worker_is_done_by_another(planned: Set, single: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    work = stand_in_models.write(tmp_path / "slow", extractor_work=400)
    Set(planned.photos, planned.out, work).plan(4)
    command = [*COMMAND, "run", str(planned.out), "--on", "ray", "--workers", "2", "--threads", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        pid = working(planned)
        os.kill(pid, signal.SIGKILL)
        error = process.communicate(timeout=300)[1]
    assert process.returncode == 0 and "Traceback" not in error, error
    assert differences(planned.out, single) == []


@pytest.mark.slow
def test_a_worker_that_cannot_work_is_told_in_a_line(planned: Set) -> None:
    pytest.importorskip("ray")
    planned.plan(1)
    elsewhere = planned.out / "models"
    elsewhere.mkdir()
    for model in planned.models.glob("*extractor*"):
        (elsewhere / model.name).write_bytes(b"damaged")
    text = shard("run", planned.out, "--on", "ray", "--workers", 1, "--models", elsewhere, expect=2)
    assert "a worker could not go on in extract-1" in text and "cannot be opened" in text and "Traceback" not in text


def test_what_ray_cannot_do_is_told_in_a_line(planned: Set, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned.plan(1)
    (tmp_path / "hidden/ray").mkdir(parents=True)
    (tmp_path / "hidden/ray/__init__.py").write_text("raise ImportError\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "hidden"), prepend=os.pathsep)
    missing = shard("run", planned.out, "--on", "ray", expect=2)
    assert "pip install 'lgbatch[ray]'" in missing and missing.count("\n") == 1
    assert "--address has no effect with --on local" in shard("run", planned.out, "--address", "a:1", expect=2)


def working(planned: Set) -> int:
    """Wait until a worker does a unit. Returns its process."""
    for _ in range(2000):
        time.sleep(0.05)
        for lease in planned.folder.results("extract-1").glob(".*/lease.json"):
            if holder := read_holder(lease):
                return holder.pid
    raise AssertionError("no worker does a unit")
