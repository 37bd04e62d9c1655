"""Every command on bad stores, databases, models, settings and lists: one clear line, the right exit status."""

import shutil
from pathlib import Path

import pytest
from _pytest.mark.structures import ParameterSet

from tests.torture import bad_files, figures, scene
from tests.torture.process import Server


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, server: Server, standins: Path) -> Path:
    """A folder with photos, models and a finished workspace."""
    folder = tmp_path_factory.mktemp("finished")
    scene.render(folder / "photos", 3)
    shutil.copytree(standins, folder / "models")
    done = server.run("run", "photos", "-o", "out", "--models", "models", folder=folder)
    assert done.status == 0, done.err
    figures.tell(f"bad stores, databases, models, settings, lists and folders: {len(bad_files.ALL)} kinds")
    return folder


def row(number: int, kind: str) -> ParameterSet:
    marks = [pytest.mark.slow] if number % 12 else []  # every twelfth in the short suite
    return pytest.param(kind, marks=marks)


@pytest.mark.parametrize("kind", [row(number, kind) for number, kind in enumerate(bad_files.ALL)])
def test_a_bad_file_ends_in_one_line(kind: str, tmp_path: Path, server: Server, finished: Path) -> None:
    case, folder = bad_files.ALL[kind], tmp_path / "case"
    shutil.copytree(finished, folder)
    case.make(folder)
    command = [*case.command]
    if command[0] not in ("pairs", "reconstruct"):
        command += ["--models", "models"]
    if command[0] in ("match", "reconstruct") and "image folder" not in kind:
        command += ["--images", "photos"]
    done = server.run(*command, folder=folder)
    said = done.out + done.err
    problem = done.problem(lines=2)
    assert problem is None, (problem, done.status, said)
    assert done.status in ((case.status,) if isinstance(case.status, int) else case.status), (done.status, said)
    assert case.word in said, said
    assert not any((ord(c) < 32 and c != "\n") or ord(c) == 127 for c in said), "it reaches the terminal"
