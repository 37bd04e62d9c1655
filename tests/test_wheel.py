"""What an installation holds: the source distribution, and the wheels of it with and without a C compiler."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from lgbatch.kernels import library, processor

ROOT = Path(__file__).parents[1]
KERNELS = ROOT / "lgbatch" / "kernels"
BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"


def c_files() -> set[str]:
    return {path.relative_to(ROOT).as_posix() for path in KERNELS.glob("*/**/*.[ch]")}


def build(kind: str, source: Path, out: Path, **environment: str) -> Path:
    """Build a wheel or a source distribution, with the setuptools that is installed."""
    command = [sys.executable, "-c", BUILD, f"build_{kind}", str(out)]
    done = subprocess.run(command, cwd=source, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out / done.stdout.splitlines()[-1]


def doctor(installed: Path, models: Path) -> dict[str, Any]:
    """`lgbatch doctor` of an unpacked wheel."""
    environment = {name: value for name, value in os.environ.items() if name != library.ISA_VARIABLE}
    command = [sys.executable, "-m", "lgbatch", "doctor", "--json", "--device", "cpu", "--models", str(models)]
    done = subprocess.run(
        command, cwd=installed, env=environment | {"PYTHONPATH": str(installed)}, capture_output=True, text=True
    )
    values: dict[str, Any] = json.loads(done.stdout)
    return values


def test_every_c_file_is_compiled_or_a_dependency() -> None:
    (module,) = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"][
        "ext-modules"
    ]
    assert {*module["sources"], *module["depends"]} == c_files()


@pytest.mark.slow
def test_a_source_distribution_builds_with_the_kernels_and_without_a_compiler(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    source = tmp_path / "source"
    for folder in "lgbatch", "export", "pipelines", "configs":
        shutil.copytree(ROOT / folder, source / folder, symlinks=True, ignore=shutil.ignore_patterns("*.so", "*.pyd"))
    for name in "pyproject.toml", "README.md", "LICENSE":
        shutil.copy(ROOT / name, source)
    with tarfile.open(build("sdist", source, tmp_path)) as archive:
        archive.extractall(tmp_path / "sdist", filter="data")
    (unpacked,) = (tmp_path / "sdist").iterdir()
    assert {path for path in c_files() if not (unpacked / path).is_file()} == set()
    found = {}
    for compiler in ["/bin/false", *filter(None, [shutil.which("cc")])]:
        shutil.rmtree(unpacked / "build", ignore_errors=True)
        out = tmp_path / Path(compiler).name
        out.mkdir()
        wheel = build("wheel", unpacked, out, CC=compiler)
        assert "-cp311-abi3-" in wheel.name
        with zipfile.ZipFile(wheel) as files:
            files.extractall(out / "installed")
        found[out.name] = doctor(out / "installed", tmp_path)
    missing = [problem for problem in found["false"]["problems"] if "without its compiled kernels" in problem]
    assert found["false"]["kernels"] == [] and len(missing) == processor.runs_kernels()
    assert "cc" not in found or library.PORTABLE in found["cc"]["kernels"]
