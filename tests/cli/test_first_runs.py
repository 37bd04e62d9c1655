"""Several processes that need the same models: one exports, the others wait and use its files."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lgbatch.export import models
from lgbatch.export.models import ensure_models
from lgbatch.runtime.registry import model_path
from lgbatch.workspace.lock import NAME
from tests.workspace.test_lock import disable_file_locks

KINDS = ("extractor", "stages")
PROCESS = """
import sys, time
from pathlib import Path
from lgbatch.export import models

def export_slowly(folder, extractor, kind, weights, log):
    with models.tempfile.TemporaryDirectory(prefix=models._DRAFT, dir=folder) as draft:
        path = models.model_path(folder, extractor, kind)
        (Path(draft) / path.name).write_text("half")
        log(f"writing {kind}")
        time.sleep(float(sys.argv[2]))
        (Path(draft) / path.name).write_text("whole")
        (Path(draft) / path.name).replace(path)

models._export_kind = export_slowly
models.ensure_models(Path(sys.argv[1]), "xfeat", ["extractor", "stages"])
"""


class Process:
    """A process that exports XFeat's models, with `seconds` for each, and its lines."""

    def __init__(self, folder: Path, seconds: float) -> None:
        command = [sys.executable, "-c", PROCESS, str(folder), str(seconds)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.lines: list[str] = []

    def wait_for(self, text: str) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip())
            if text in line:
                return
        raise AssertionError(f"no {text!r} in {self.lines}")

    def finish(self) -> list[str]:
        _, rest = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, rest
        return self.lines + rest.splitlines()


@pytest.fixture
def start() -> Iterator[type[Process]]:
    """Process, of which none is left running."""
    started: list[Process] = []

    class Started(Process):
        def __init__(self, folder: Path, seconds: float) -> None:
            super().__init__(folder, seconds)
            started.append(self)

    yield Started
    for process in started:
        process.process.kill()
        process.process.communicate()


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


WHOLE = {model_path(Path(), "xfeat", kind).name: "whole" for kind in ("extractor", "stages", "matcher")}


def test_of_processes_that_start_together_one_exports_and_the_others_wait(tmp_path: Path, start: type[Process]) -> None:
    folder = tmp_path / "models"
    first = start(folder, 0.7)
    first.wait_for("writing")
    others = [start(folder, 0.7) for _ in range(2)]
    assert sum("writing" in line for line in first.finish()) == 3
    for other in others:
        (line,) = other.finish()
        assert f"{folder}/ is in use by" in line and f"process {first.process.pid} " in line
        assert line.endswith("waiting for it")
    assert contents(folder) == WHOLE


def test_if_the_exporting_process_is_killed_the_waiting_one_exports_the_rest(
    tmp_path: Path, start: type[Process]
) -> None:
    first = start(tmp_path, 0)
    first.wait_for("writing")
    first.finish()
    (tmp_path / model_path(tmp_path, "xfeat", "stages").name).unlink()
    killed = start(tmp_path, 60)
    killed.wait_for("writing stages")
    waiting = start(tmp_path, 0)
    waiting.wait_for("waiting for it")
    (draft,) = tmp_path.glob(".draft-*/*")
    assert draft.read_text() == "half"
    killed.process.kill()
    killed.process.wait()
    assert [line for line in waiting.finish() if "writing" in line] == ["writing stages"]
    assert contents(tmp_path) == WHOLE


def test_without_file_locks_the_lock_of_a_dead_process_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disable_file_locks(monkeypatch)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / NAME).write_text(f'{{"pid": {dead.pid}, "host": "{models.__name__}"}}')
    lines: list[str] = []
    monkeypatch.setattr("lgbatch.workspace.lock.socket.gethostname", lambda: models.__name__)
    monkeypatch.setattr(models, "_export_kind", lambda folder, extractor, kind, *_: lines.append(kind))
    ensure_models(tmp_path, "xfeat", KINDS, log=lines.append)
    assert lines[1:] == list(models.exported_kinds("xfeat")) and "Exporting" in lines[0]
    assert contents(tmp_path) == {}


def test_threads_of_one_process_export_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []

    def export_slowly(folder: Path, extractor: str, kind: models.Kind, *_: object) -> None:
        time.sleep(0.05)
        written.append(kind)
        model_path(folder, extractor, kind).write_text("whole")

    monkeypatch.setattr(models, "_export_kind", export_slowly)
    threads = [
        threading.Thread(target=ensure_models, args=(tmp_path, "xfeat", KINDS, lambda line: None)) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(written) == sorted(models.exported_kinds("xfeat")) and contents(tmp_path) == WHOLE


def test_a_folder_that_cannot_be_locked_is_one_line(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    with pytest.raises(models.ModelError, match=r"cannot write models to .*: choose another with --models"):
        ensure_models(tmp_path, "xfeat", KINDS)
