"""Workspaces on file systems whose locks, or syncs of folders, fail as those of network folders do."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.torture.harness import contents, scene, stand_in_models
from tests.workspace.test_lock import COMPETE, HOLD

SOURCE = Path(__file__).parents[1] / "helpers" / "network_folder.c"
LGBATCH = [sys.executable, "-m", "lgbatch"]
ALL = "fld"


@pytest.fixture(scope="module", autouse=True)
def without_kernels() -> Iterator[None]:
    """The stand-in models run in ONNX Runtime."""
    with stand_in_models.without_kernels():
        yield


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library to preload, which makes the calls fail."""
    compiler = shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("needs Linux and a C compiler")
    library = tmp_path_factory.mktemp("shim") / "network_folder.so"
    subprocess.run([compiler, "-Wall", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True)
    return library


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos, stand-ins for the models, and the workspace of an undisturbed run."""
    folder = tmp_path_factory.mktemp("inputs")
    scene.render(folder / "photos", 3)
    stand_in_models.write(folder / "models")
    subprocess.run([*LGBATCH, *run_arguments(folder, folder / "complete")], check=True, capture_output=True)
    return folder


def run_arguments(inputs: Path, out: Path) -> list[str]:
    return ["run", str(inputs / "photos"), "-o", str(out), "--models", str(inputs / "models"), "--precision", "fp32"]


def environment(shim: Path, folder: Path, faults: str) -> dict[str, str]:
    return os.environ | {"LD_PRELOAD": str(shim), "NETWORK_FOLDER": str(folder), "NETWORK_FAULTS": faults}


@pytest.mark.parametrize("faults", ["f", "l", "d", ALL])
def test_a_run_in_a_network_folder_ends_as_elsewhere(shim: Path, inputs: Path, tmp_path: Path, faults: str) -> None:
    out, temporary = tmp_path / "out", tmp_path / "temporary"
    temporary.mkdir()
    disturbed = environment(shim, out, faults) | {"TMPDIR": str(temporary)}
    for again in False, True:
        done = subprocess.run(
            [*LGBATCH, *run_arguments(inputs, out)], env=disturbed, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert ("finished already" in done.stdout) == again
        assert not contents.differences(contents.read(out), contents.read(inputs / "complete"))
        assert (out / "sparse" / "0" / "points3D.bin").stat().st_size > 1000
    for arguments in ["pack", str(out / "features.h5")], ["info", str(out)]:
        subprocess.run([*LGBATCH, *arguments], env=disturbed, check=True, capture_output=True)
    left = {".lgbatch.lock", "database.db-wal", "database.db.partial", "sparse.partial"}
    assert not left & {path.name for path in out.iterdir()} and not list(temporary.iterdir())


def test_without_a_local_folder_the_cause_and_the_way_out_are_told(shim: Path, inputs: Path, tmp_path: Path) -> None:
    disturbed = environment(shim, tmp_path, ALL) | {"TMPDIR": str(tmp_path)}
    command = [*LGBATCH, *run_arguments(inputs, tmp_path / "out")]
    done = subprocess.run(command, env=disturbed, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "file system without file locks" in done.stderr and "set TMPDIR to a folder on a local disk" in done.stderr


def test_the_lock_of_a_network_folder_is_held_by_the_process_that_it_names(shim: Path, tmp_path: Path) -> None:
    disturbed = environment(shim, tmp_path, ALL)
    script = [sys.executable, "-c", HOLD % str(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(script, env=disturbed, stdin=pipe, stdout=pipe, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        refused = subprocess.run(script, env=disturbed, capture_output=True, text=True, check=False)
        assert f"process {holder.pid}" in refused.stderr and "if that process has ended, delete" in refused.stderr
        holder.kill()
        holder.wait()
        after = subprocess.run(script, env=disturbed, capture_output=True, text=True, check=False, input="")
        assert (after.returncode, after.stdout) == (0, "held\n")


def test_processes_never_hold_the_lock_of_a_network_folder_together(shim: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", COMPETE, str(tmp_path)]
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen(command, env=environment(shim, tmp_path, ALL), stdout=pipe, stderr=pipe, text=True)
        for _ in range(4)
    ]
    outputs = [process.communicate() for process in processes]
    assert [error for _, error in outputs] == [""] * 4
    assert sum(int(times) for times, _ in outputs) > 20
