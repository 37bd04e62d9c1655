"""Fixtures of the torture tests."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.torture.harness import budget, scene, stand_in_models
from tests.torture.harness.process import Server

FAULTS = Path(__file__).parent / "harness" / "faults.c"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in budget.report_lines:
        terminalreporter.write_line(f"torture: {line}")


@pytest.fixture(scope="package", autouse=True)
def without_kernels() -> Iterator[None]:
    """The stand-in models run in ONNX Runtime."""
    with stand_in_models.without_kernels():
        yield


@pytest.fixture(scope="session")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the stand-in models."""
    return stand_in_models.write(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four photos."""
    folder = tmp_path_factory.mktemp("photos")
    scene.render(folder, 4)
    return folder


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """Runs whole commands without their start-up time."""
    with Server() as running:
        yield running


@pytest.fixture(scope="session")
def faulty_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Runs whole commands whose file system calls fail on request."""
    compiler = shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("needs Linux and a C compiler")
    library = tmp_path_factory.mktemp("faults") / "faults.so"
    subprocess.run([compiler, "-O1", "-Wall", "-shared", "-fPIC", "-o", library, FAULTS, "-ldl"], check=True)
    with Server(library) as running:
        yield running
