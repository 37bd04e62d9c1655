"""What several kinds of torture share."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.torture import figures, scene, standin
from tests.torture.process import Server

HERE = Path(__file__).parent


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in figures.told:
        terminalreporter.write_line(f"torture: {line}")


@pytest.fixture(scope="session")
def standins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the stand-in models."""
    return standin.write(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four photos."""
    folder = tmp_path_factory.mktemp("photos")
    scene.render(folder, 4)
    return folder


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """For whole commands, quickly."""
    with Server() as running:
        yield running


@pytest.fixture(scope="session")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """For whole commands, on a disk that fails when it is asked to."""
    compiler = shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("needs Linux and a C compiler")
    library = tmp_path_factory.mktemp("faults") / "faults.so"
    subprocess.run([compiler, "-O1", "-Wall", "-shared", "-fPIC", "-o", library, HERE / "faults.c", "-ldl"], check=True)
    with Server(library) as running:
        yield running
