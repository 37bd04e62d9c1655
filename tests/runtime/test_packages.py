"""The installation of this machine, conflicting, incomplete and missing packages."""

import importlib.util
import platform
import sys
import tomllib
from pathlib import Path

import pytest

from lgbatch.errors import LgbatchError
from lgbatch.runtime import packages
from lgbatch.runtime.packages import import_hint, installation, pycolmap_problem, require_pycolmap, runtime_conflict

INDEX = " --extra-index-url https://download.pytorch.org/whl/cpu"
PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The installed packages and their versions, to be filled."""
    versions: dict[str, str] = {}
    monkeypatch.setattr(packages, "installed_version", versions.get)
    return versions


def on(monkeypatch: pytest.MonkeyPatch, system: str, machine: str) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(sys, "platform", {"Windows": "win32"}.get(system, system.lower()))


@pytest.mark.parametrize(
    ("system", "machine", "gpu", "kind", "command"),
    [
        ("Linux", "x86_64", False, "Linux on x86-64", f"pip install 'lgbatch[export]'{INDEX}"),
        (
            *("Linux", "x86_64", True),
            *("Linux on x86-64 with an NVIDIA GPU", f"pip install 'lgbatch[export,cuda]'{INDEX}"),
        ),
        ("Linux", "aarch64", False, "Linux on ARM", f"pip install 'lgbatch[export]'{INDEX}"),
        ("Darwin", "arm64", False, "macOS on ARM", "pip install 'lgbatch[export]'"),
        ("Windows", "AMD64", False, "Windows on x86-64", 'pip install "lgbatch[export]"'),
        (
            *("Windows", "AMD64", True),
            *("Windows on x86-64 with an NVIDIA GPU", 'pip install "lgbatch[export,cuda]"'),
        ),
    ],
)
def test_each_kind_of_machine_has_one_command(
    monkeypatch: pytest.MonkeyPatch, system: str, machine: str, gpu: bool, kind: str, command: str
) -> None:
    on(monkeypatch, system, machine)
    assert installation(gpu=gpu) == (kind, command)


def test_the_commands_name_extras_that_exist() -> None:
    assert {"export", "cuda"} <= PROJECT["optional-dependencies"].keys()


def test_several_packages_of_onnx_runtime_are_a_problem(
    monkeypatch: pytest.MonkeyPatch, installed: dict[str, str]
) -> None:
    on(monkeypatch, "Linux", "x86_64")
    conflict = runtime_conflict.__wrapped__
    assert conflict() is None
    installed["onnxruntime-gpu"] = "1.31.1"
    assert conflict() is None
    installed["onnxruntime"] = "1.32.0"
    assert conflict() == (
        "onnxruntime 1.32.0 and onnxruntime-gpu 1.31.1 are installed, and overwrite each other: run `pip uninstall -y "
        "onnxruntime onnxruntime-gpu`, then `pip install onnxruntime-gpu`"
    )
    installed["onnxruntime-openvino"] = "1.24.1"
    assert conflict().endswith("then `pip install onnxruntime-gpu` or `pip install onnxruntime-openvino`")
    on(monkeypatch, "Darwin", "arm64")
    assert "then `pip install onnxruntime` or" in conflict()


@pytest.mark.parametrize(
    ("message", "names", "way_out"),
    [
        ("libGL.so.1: cannot open shared object file", ["opencv-python"], "apt-get install libgl1"),
        ("libgthread-2.0.so.0: cannot open shared object file", ["opencv-python"], "apt-get install libglib2.0-0"),
        ("No module named 'cv2'", [], "--no-deps opencv-python`"),
        ("module 'cv2' has no attribute 'imread'", ["opencv-python-headless"], "--no-deps opencv-python-headless`"),
        ("module 'onnxruntime' has no attribute 'X'", ["onnxruntime-gpu"], "--no-deps onnxruntime-gpu`"),
        ("module 'onnxruntime' has no attribute 'X'", ["onnxruntime"], "--no-deps onnxruntime`"),
    ],
)
def test_a_library_that_cannot_be_loaded_has_a_way_out(
    installed: dict[str, str], message: str, names: list[str], way_out: str
) -> None:
    installed |= dict.fromkeys(names, "1.0")
    assert way_out in str(import_hint(ImportError(message)))
    assert import_hint(ImportError("DLL load failed")) is None


def test_a_missing_or_old_pycolmap_is_a_problem_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch, installed: dict[str, str]
) -> None:
    on(monkeypatch, "Linux", "x86_64")
    installed["pycolmap"] = "4.2.1"
    assert pycolmap_problem() is None
    require_pycolmap()
    installed["pycolmap"] = "3.13.0"
    assert pycolmap_problem() == "pycolmap 3.13.0 is too old: run `pip install --upgrade pycolmap`"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LgbatchError, match=r"pycolmap is not installed: run .*; extract, pairs, match and infer work"):
        require_pycolmap()
    on(monkeypatch, "Linux", "aarch64")
    assert "no wheel of it for Linux on ARM: install pycolmap 4.2 or later from conda-forge" in str(pycolmap_problem())


def test_the_oldest_pycolmap_is_that_of_the_project() -> None:
    version = ".".join(map(str, packages._PYCOLMAP))
    assert any(line.startswith(f"pycolmap>={version};") for line in PROJECT["dependencies"])
