import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from typer.testing import CliRunner

from lgbatch._version import __version__
from lgbatch.api import steps
from lgbatch.cli import main as cli
from lgbatch.config import Settings, Stage, settings_used_by
from lgbatch.storage.features import FeatureStore
from lgbatch.types import Features

RUN = get_args(Stage)
USERS: dict[str, tuple[str, ...]] = {
    "run": (*RUN, "run"),
    "infer": ("infer",),
    "doctor": ("doctor",),
    "extract": ("orient", "extract"),
    "pairs": ("pairs", "match", "import"),
    "match": ("match", "import"),
    "reconstruct": ("reconstruct", "refine"),
    "refine": ("refine",),
    "demo": (*RUN, "run"),
    "errors": (),
    "info": (),
    "pack": (),
    "report": (),
    "remove": (),
    "export": (),
}
COMMANDS = {command: {f.name for f in settings_used_by(*users)} for command, users in USERS.items()}


@pytest.fixture(autouse=True)
def empty_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty folder, with an empty folder of models."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def extracted(tmp_path: Path) -> list[str]:
    """Write features.h5 of three photos; returns their names."""
    names = ["a.jpg", "b.jpg", "my photo.jpg"]
    empty = np.zeros(0, np.float32)
    (tmp_path / "photos").mkdir()
    with FeatureStore(tmp_path / "features.h5", append={"extractor": Settings().extractor}) as store:
        store.set_image_folder(tmp_path / "photos")
        for name in names:
            (tmp_path / "photos" / name).touch()
            store.write(name, Features(empty.reshape(0, 2), empty, empty.reshape(0, 128), (8, 8)))
    return names


def call(*arguments: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a command in this process."""
    result = CliRunner().invoke(cli.app, arguments, env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"})
    return result.exit_code, result.stdout, result.stderr


def run_module(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m lgbatch`."""
    return subprocess.run([sys.executable, "-m", "lgbatch", *arguments], capture_output=True, text=True)


def one_line(*arguments: str) -> str:
    """Run a command that has to fail; returns its single line on standard error."""
    status, out, line = call(*arguments)
    assert (status, out) == (2, "")
    assert line.startswith("lgbatch: ") and line.endswith("\n") and line.count("\n") == 1, line
    assert "is a bug" not in line
    return line


def test_the_help_lists_every_command() -> None:
    status, out, _ = call("--help")
    assert status == 0
    assert all(f" {name} " in out for name in COMMANDS)
    narrow = CliRunner().invoke(cli.app, ["--help"], terminal_width=80).stdout
    assert "..." not in narrow.replace("[ARGS]...", "")  # no first sentence is cut


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_each_setting_with_its_default(command: str) -> None:
    status, out, _ = call(command, "--help")
    assert status == 0
    text = re.sub(r"[\s│]+", " ", out)
    defaults = Settings().as_dict()
    for name, default in defaults.items():
        option = f"--{name.replace('_', '-')} "
        assert (option in text) == (name in COMMANDS[command]) or (command, name) == ("export", "max_keypoints")
        if name in COMMANDS[command]:
            shown = text.partition(option)[2].partition(" --")[0]
            assert default == "" or isinstance(default, bool) or f"[default: {default}]" in shown


def test_settings_reach_the_command(extracted: list[str], tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text("pairing = 'sequential'\nwindow = 1\n")
    assert call("pairs")[0] == 0
    assert len(Path("pairs.txt").read_text().splitlines()) == 3
    assert call("pairs", "--config", "own.toml")[0] == 0
    assert Path("pairs.txt").read_text() == "a.jpg b.jpg\nb.jpg\tmy photo.jpg\n"
    assert call("pairs", "--config", "own.toml", "--window", "2")[0] == 0
    assert len(Path("pairs.txt").read_text().splitlines()) == 3


def test_json_output_is_one_object(extracted: list[str]) -> None:
    status, out, _ = call("pairs", "--json")
    assert status == 0
    summary: dict[str, Any] = json.loads(out)
    assert summary["pairs"] == 3
    assert summary["settings"] == Settings().used_by("pairs", "match", "import")
    assert summary["seconds"].keys() == {"pairs"}
    assert summary["versions"]["lgbatch"] == __version__


@pytest.mark.parametrize("command", [["run", "photos", "-o", "out"], ["extract", "photos"]])
def test_a_missing_or_empty_photo_folder_fails_before_the_models_are_exported(command: list[str]) -> None:
    assert "cannot open the photo folder photos" in one_line(*command)
    Path("photos").mkdir()
    assert "no photos in photos" in one_line(*command)
    assert "no photos in photos" in one_line(*command, "--json")
    assert [path.name for path in Path().iterdir()] == ["photos"]


@pytest.mark.parametrize("command", ["pairs", "match", "reconstruct"])
def test_a_missing_store_is_reported_with_the_way_out(command: str) -> None:
    line = one_line(command)
    assert "no features.h5 in" in line and "--workspace" in line
    assert "no features.h5 in elsewhere" in one_line(command, "--workspace", "elsewhere", "--json")
    Path("features.h5").write_bytes(b"not HDF5")
    assert "cannot open features.h5" in one_line(command)


def test_missing_pairs_fail_before_the_models_are_exported(extracted: list[str]) -> None:
    assert "cannot read pairs from pairs.txt: No such file or directory; create one with `lgbatch pairs`" in one_line(
        "match"
    )
    assert "cannot read pairs from some.txt" in one_line("match", "some.txt")
    assert not Path("cache").exists()


def test_a_missing_database_names_the_stage_that_writes_it(extracted: list[str]) -> None:
    line = one_line("reconstruct")
    assert "database.db" in line and "lgbatch match" in line


def test_missing_photos_are_reported_with_the_option_for_their_folder(extracted: list[str], tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "photos")
    for command in "match", "reconstruct":
        assert "--images" in one_line(command)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["export", "orb"], ["extractor must be one of ", "disk", "not 'orb'"]),
        (["extract", "photos", "--max-keypoints", "0"], ["max_keypoints must be in 1..65536"]),
        (["pairs", "--config", "none"], ["no preset 'none'", "fast"]),
        (["pairs", "--config", "none.toml"], ["cannot read settings from none.toml"]),
        (["pairs", "--config", "own.toml"], ["own.toml: unknown setting 'windw'; did you mean 'window'?"]),
        (
            ["pairs", "--pairing", "all"],
            ["pairing must be one of auto, exhaustive, sequential", "joined with +, not 'all'"],
        ),
        (["pairs", "--window", "5"], ["--window has no effect with --pairing auto: leave one of them out"]),
        (["match", "--calibration", "c.txt", "--camera-model", "PINHOLE"], ["--camera-model has no effect with"]),
        (
            ["run", "photos", "-o", "out", "--pairs", "p.txt", "--pairing", "sequential"],
            ["--pairing has no effect with --pairs p.txt: leave one of them out"],
        ),
        (["errors", "-w", "own.toml"], ["own.toml is a file: give the --workspace of a run"]),
        (["pairs", "-w", "own.toml"], ["own.toml is a file, not a folder"]),
        (["info", "own.toml"], ["own.toml is neither a store nor a database"]),
        (["pack", "own.toml"], ["own.toml is not a store: give a features.h5 or matches.h5"]),
        (["pack", "none.h5"], ["there is no file none.h5"]),
        (["pack", "."], [". is not a store"]),
    ],
)
def test_a_bad_setting_is_reported_in_one_line(arguments: list[str], parts: list[str]) -> None:
    Path("own.toml").write_text("windw = 5\n")
    line = one_line(*arguments)
    assert all(part in line for part in parts), line


@pytest.mark.parametrize("arguments", [["run"], ["frob"], ["pairs", "--frob"], ["pairs", "--window", "two"]])
def test_an_invalid_command_line_has_status_2(arguments: list[str]) -> None:
    status, out, err = call(*arguments)
    assert (status, out) == (2, "")
    assert "Usage" in err


def test_an_invalid_choice_lists_the_valid_ones() -> None:
    status, out, err = call("extract", "photos", "--extractor", "orb")
    assert (status, out) == (2, "")
    assert "'--extractor': 'orb' is not one of 'disk', 'aliked-n16'" in err
    assert call("extract", "photos", "--threads", "x")[2].endswith("'--threads': Input should be a valid integer\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_without_settings_take_no_settings_file(command: str) -> None:
    assert ("--config" in call(command, "--help")[1]) == bool(COMMANDS[command])


def test_an_empty_pairs_file_is_an_error(extracted: list[str]) -> None:
    Path("other.txt").touch()
    assert "other.txt lists no pairs (the file is empty)" in one_line("match", "other.txt")
    assert "other.txt lists no pairs" in one_line("run", "photos", "-o", "out", "--pairs", "other.txt")


def test_debug_adds_the_traceback() -> None:
    done = run_module("pairs", "--debug")  # in a process of its own, because --debug configures the log
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Traceback (most recent call last)")
    assert "StoreError: no features.h5" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("lgbatch: no features.h5")


def test_an_unexpected_exception_is_reported_in_one_line(extracted: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by zero\nand more")

    monkeypatch.setattr(steps, "choose_pairs", fail)
    status, out, line = call("pairs")
    assert (status, out) == (2, "")
    assert line == (
        "lgbatch: ZeroDivisionError: by zero; this is a bug in lgbatch, please report the output of --debug\n"
    )


def test_an_interrupted_command_has_status_130(extracted: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(steps, "choose_pairs", interrupt)
    status, out, line = call("pairs")
    assert (status, out) == (130, "")
    assert line == "lgbatch: interrupted; run the same command again to continue\n"


def test_lgbatch_runs_as_a_module() -> None:
    done = run_module("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{__version__}\n", "")


def test_importing_onnx_runtime_writes_no_telemetry_into_user_folders(tmp_path: Path) -> None:
    folders = {name: str(tmp_path / name) for name in ("HOME", "XDG_CACHE_HOME", "TMPDIR")}
    for folder in folders.values():
        Path(folder).mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    command = [sys.executable, "-c", "import lgbatch.runtime.models"]
    subprocess.run(command, env=environment | folders, check=True)
    assert [path for folder in folders.values() for path in Path(folder).rglob("*")] == []


@pytest.mark.parametrize(("value", "calls"), [("1", 1), ("0", 0)])
def test_telemetry_is_switched_off_by_call_too_unless_the_user_opts_in(value: str, calls: int) -> None:
    program = (
        "import sys, types; calls = []; runtime = sys.modules['onnxruntime'] = types.ModuleType('onnxruntime')\n"
        "runtime.disable_telemetry_events = lambda: calls.append(1)\n"
        "import lgbatch.runtime.devices; print(len(calls))"
    )
    environment = os.environ | {"ORT_DISABLE_TELEMETRY": value}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert int(done.stdout) == calls
