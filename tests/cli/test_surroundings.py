"""Unusual accounts and folders: no home, an empty cache folder, folders that cannot be written or read."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lgbatch.cli import main
from lgbatch.cli.info import describe
from lgbatch.cli.options import _format_error
from lgbatch.errors import DatabaseError, ModelError, StoreError
from lgbatch.runtime import registry
from lgbatch.runtime.registry import default_folder
from lgbatch.storage import opening
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.journal import journal_path
from tests.helpers import synthetic


def lgbatch(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command with these environment variables only."""
    command = [sys.executable, "-m", "lgbatch", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"} | environment)


@pytest.fixture
def no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """No HOME, and a user id that has no account."""

    def fail() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(registry.Path, "home", fail)


@pytest.mark.parametrize("value", ["", "relative/folder"])
def test_an_empty_or_relative_cache_folder_counts_as_unset(
    value: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    assert default_folder() == tmp_path / ".cache" / "lgbatch"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert default_folder() == tmp_path / "cache" / "lgbatch"


def test_without_a_home_the_folder_of_models_has_to_be_given(no_account: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"no home folder .*set HOME, or .*--models"):
        default_folder()
    monkeypatch.setenv("HOME", "")
    with pytest.raises(ModelError, match="set HOME"):
        default_folder()


@pytest.mark.skipif(sys.platform == "win32", reason="HOME is not used")
def test_commands_run_without_a_home_or_end_in_one_line(tmp_path: Path) -> None:
    done = lgbatch("doctor", "--json", "--device", "cpu", "--models", tmp_path)
    assert json.loads(done.stdout)["models_folder"] == str(tmp_path)
    done = lgbatch("doctor", HOME="")
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr
        == "lgbatch: " + "there is no home folder for the models: set HOME, or give their folder with --models\n"
    )
    done = lgbatch("doctor", "--json", HOME=str(tmp_path / "none"))
    assert json.loads(done.stdout)["models_folder"] == str(tmp_path / "none" / ".cache" / "lgbatch")
    assert not (tmp_path / "none").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="HOME is not used")
def test_a_completion_that_cannot_be_installed_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    no_detection = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}  # which needs a shell above this process
    done = lgbatch("--install-completion", "bash", HOME=str(tmp_path / "file"), **no_detection)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("lgbatch: cannot install the completion (") and "--show-completion" in done.stderr


def test_a_completion_without_a_home_folder_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(main, "app", fail)
    monkeypatch.setattr(sys, "argv", ["lgbatch", "--install-completion"])
    with pytest.raises(SystemExit) as exit_info:
        main.main()
    line = capsys.readouterr().err
    assert exit_info.value.code == 2 and "there is no home folder" in line and "set HOME" in line
    assert line.count("\n") == 1


@pytest.fixture
def read_only(tmp_path: Path, source: synthetic.Source, database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database in a folder that cannot be written."""
    synthetic.import_source(database, source)
    database.chmod(0o444)
    tmp_path.chmod(0o555)
    if os.geteuid() == 0:  # root may write anyway: as on a read-only file system
        real = os.access
        monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and real(path, mode))
    yield database
    tmp_path.chmod(0o755)


def test_a_database_that_cannot_be_written_is_described(read_only: Path) -> None:
    before = read_only.read_bytes(), sorted(read_only.parent.iterdir())
    (info,) = describe(read_only)
    assert (info["items"], info["keypoints"], info["pairs"], info["matches"]) == (3, 60, 2, 20)
    assert (read_only.read_bytes(), sorted(read_only.parent.iterdir())) == before


def test_an_unfinished_commit_that_cannot_be_finished_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FeatureStore(tmp_path / "features.h5", append={}):
        pass
    journal_path(tmp_path / "features.h5").touch()

    def fail(path: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(opening, "recover", fail)
    with pytest.raises(StoreError, match=r"has a commit to finish.*cannot be written"):
        describe(tmp_path)


def test_another_or_a_damaged_database_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "database.db").write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    with pytest.raises(DatabaseError, match=r"cannot read .*database\.db"):
        describe(tmp_path)


def test_an_error_of_the_file_system_is_no_bug(tmp_path: Path) -> None:
    for error in (
        PermissionError(13, "Permission denied", "/photos"),
        FileNotFoundError(2, "No usable temporary folder"),
    ):
        line = _format_error(error)
        assert "is a bug" not in line and error.strerror in line and "\n" not in line
    assert _format_error(PermissionError(13, "Permission denied", "/photos")).startswith("/photos: Permission denied;")
    assert "this is a bug" in _format_error(OSError("without a number"))
