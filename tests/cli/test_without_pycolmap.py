"""A machine without pycolmap, as Linux on ARM: photos are extracted and matched, other commands end with one line."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.helpers import slow_cli, synthetic

HIDE = 'import sys; sys.modules["pycolmap"] = None'


@pytest.fixture
def folder(tmp_path: Path, source: synthetic.Source) -> Path:
    """A folder with the photos `images`."""
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "sitecustomize.py").write_text(HIDE)
    return tmp_path


def lgbatch(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(folder / "hidden")}
    command = [*slow_cli.COMMAND, "0", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)


def test_photos_are_extracted_and_matched_without_pycolmap(folder: Path) -> None:
    for step in (["extract", "images", "-w", "out"], ["pairs", "-w", "out"]):
        done = lgbatch(folder, *step)
        assert (done.returncode, done.stderr) == (0, "")
    for _ in range(2):
        done = lgbatch(folder, "match", "-w", "out")
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert done.stderr.startswith("lgbatch: out/database.db is not updated: pycolmap is not installed")
        assert "pairs       3, 3 with matches" in done.stdout
    assert not (folder / "out" / "database.db").exists()
    (folder / "out" / "database.db").touch()
    done = lgbatch(folder, "reconstruct", "-w", "out")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("lgbatch: pycolmap is not installed")


def test_commands_that_need_pycolmap_end_with_one_line_before_they_work(folder: Path) -> None:
    done = lgbatch(folder, "run", "images", "-o", "out")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("lgbatch: pycolmap is not installed")
    assert "extract, pairs, match and infer work without it" in done.stderr
    assert not (folder / "out").exists()
