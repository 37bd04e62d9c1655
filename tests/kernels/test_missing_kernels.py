"""An installation without the kernels that its processor could use says so once for each folder of models."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from lgbatch.cli import main as cli
from lgbatch.config import Settings
from lgbatch.features.network import Extractor
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
    monkeypatch.setattr(library, "runs_kernels", lambda: True)
    monkeypatch.setattr(precision, "gains_from_int8", lambda: True)


def test_it_is_one_line_and_said_once(no_kernels: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tell_missing_kernels(tmp_path, SETTINGS)
    line = capsys.readouterr().err
    assert (
        line.startswith("lgbatch: extraction and matching could be up to 4 times as fast: ") and line.count("\n") == 1
    )
    assert "without its compiled kernels" in line and "pip install" in line
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
    assert "without its compiled kernels" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_told_each_time(
    no_kernels: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        tell_missing_kernels(tmp_path / "none", SETTINGS)
    assert capsys.readouterr().err.count("\n") == 2


@pytest.mark.parametrize(
    ("changes", "slow"),
    [
        ({"precision": "fp32"}, "extraction could"),
        ({"extractor": "superpoint"}, "matching could"),
        ({"extractor": "xfeat"}, None),
    ],
)
def test_only_what_is_slow_is_told(no_kernels: None, changes: dict[str, str], slow: str | None) -> None:
    said = missing_kernels(Settings.load(device="cpu", **changes))
    assert said is None if slow is None else str(said).startswith(slow)


@pytest.mark.weights
def test_extraction_says_it(no_kernels: None, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for model in models.glob("aliked-n16rot-extractor*"):
        (tmp_path / model.name).symlink_to(model)
    for _ in range(2):
        Extractor(tmp_path, Settings(device="cpu", extractor="aliked-n16rot"))
    assert capsys.readouterr().err.count("without its compiled kernels") == 1


@pytest.mark.weights
def test_doctor_always_says_it_and_matching_once(
    no_kernels: None, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for model in models.iterdir():
        if model.name != precision.NOTICE:
            (tmp_path / model.name).symlink_to(model)
    for _ in range(2):
        result = CliRunner().invoke(cli.app, ["doctor", "--device", "cpu", "--models", str(tmp_path)])
        assert (
            result.exit_code == 1
            and "problem     extraction and matching could be up to 4 times as fast" in result.stdout
        )
        assert result.stderr == ""
    assert Matcher(tmp_path, SETTINGS).stages.precision == "fp32"
    assert capsys.readouterr().err.count("without its compiled kernels") == 1
    Matcher(tmp_path, SETTINGS)
    assert capsys.readouterr().err == ""
