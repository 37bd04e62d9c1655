"""Every command on corrupt stores, databases, models, settings and folders: one clear line and the right status."""

import shutil
from pathlib import Path

import pytest
from _pytest.mark.structures import ParameterSet

from tests.torture.corpus import bad_files
from tests.torture.harness import budget, scene
from tests.torture.harness.process import Server


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, server: Server, stand_ins: Path) -> Path:
    """A folder with photos, models and a finished workspace."""
    folder = tmp_path_factory.mktemp("finished")
    scene.render(folder / "photos", 3)
    shutil.copytree(stand_ins, folder / "models")
    done = server.run("run", "photos", "-o", "out", "--models", "models", folder=folder)
    assert done.status == 0, done.err
    budget.report(f"bad stores, databases, models, settings, lists and folders: {len(bad_files.ALL)} kinds")
    return folder


def parameter(number: int, kind: str) -> ParameterSet:
    """Every twelfth kind is in the short suite."""
    return pytest.param(kind, marks=[pytest.mark.slow] if number % 12 else [])


@pytest.mark.parametrize("kind", [parameter(number, kind) for number, kind in enumerate(bad_files.ALL)])
def test_a_bad_file_ends_in_one_line(kind: str, tmp_path: Path, server: Server, finished: Path) -> None:
    case, folder = bad_files.ALL[kind], tmp_path / "case"
    shutil.copytree(finished, folder)
    case.damage(folder)
    command = [*case.command]
    if command[0] not in ("pairs", "reconstruct"):
        command += ["--models", "models"]
    if command[0] in ("match", "reconstruct") and "image folder" not in kind:
        command += ["--images", "photos"]
    done = server.run(*command, folder=folder)
    output = done.out + done.err
    problem = done.problem(lines=2)
    assert problem is None, (problem, done.status, output)
    assert done.status in ((case.status,) if isinstance(case.status, int) else case.status), (done.status, output)
    assert case.message in output, output
    assert not any((ord(c) < 32 and c != "\n") or ord(c) == 127 for c in output), "a control character is printed"
