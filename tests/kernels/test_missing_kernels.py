"""An installation without the kernels that its processor could use says so once for each folder of models."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from lgbatch.cli import main as cli
from lgbatch.config import Settings
from lgbatch.kernels import library
from lgbatch.matching.lightglue import Matcher
from lgbatch.runtime import precision
from lgbatch.runtime.precision import missing_kernels, tell_missing_kernels

SETTINGS = Settings(device="cpu")


@pytest.fixture
def no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without the compiled file, on a processor that could run it."""
    monkeypatch.delenv(library.ISA_VARIABLE, raising=False)
    monkeypatch.setattr(library, "_library", lambda: None)
    monkeypatch.setattr(library, "gains_from_kernels", lambda: True)


def test_it_is_one_line_and_said_once(no_kernels: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tell_missing_kernels(tmp_path, SETTINGS)
    line = capsys.readouterr().err
    assert line.startswith("lgbatch: matching takes up to 3 times as long") and line.count("\n") == 1
    assert "without its int8 kernels" in line and "pip install" in line
    tell_missing_kernels(tmp_path, SETTINGS)
    assert capsys.readouterr().err == ""


def test_another_folder_and_another_version_are_told(
    no_kernels: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = tmp_path / "a", tmp_path / "b"
    for folder in folders:
        folder.mkdir()
        tell_missing_kernels(folder, SETTINGS)
    assert capsys.readouterr().err.count("\n") == 2
    monkeypatch.setattr(precision, "__version__", "99.0")
    tell_missing_kernels(folders[0], SETTINGS)
    assert "without its int8 kernels" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_told_each_time(
    no_kernels: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        tell_missing_kernels(tmp_path / "none", SETTINGS)
    assert capsys.readouterr().err.count("\n") == 2


@pytest.mark.parametrize("changes", [{"precision": "fp32"}, {"extractor": "xfeat"}])
def test_who_does_not_miss_the_kernels_is_not_told(no_kernels: None, changes: dict[str, str]) -> None:
    assert missing_kernels(SETTINGS) is not None
    assert missing_kernels(Settings.load(device="cpu", **changes)) is None


@pytest.mark.weights
def test_doctor_always_says_it_and_matching_once(
    no_kernels: None, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for model in models.iterdir():
        if model.name != precision.NOTICE:
            (tmp_path / model.name).symlink_to(model)
    for _ in range(2):
        result = CliRunner().invoke(cli.app, ["doctor", "--device", "cpu", "--models", str(tmp_path)])
        assert result.exit_code == 1 and "problem     matching takes up to 3 times as long" in result.stdout
        assert result.stderr == ""
    assert Matcher(tmp_path, SETTINGS).stages.precision == "fp32"
    assert capsys.readouterr().err.count("without its int8 kernels") == 1
    Matcher(tmp_path, SETTINGS)
    assert capsys.readouterr().err == ""
