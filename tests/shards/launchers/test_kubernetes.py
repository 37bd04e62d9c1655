"""The command of the manifest in docs/shards.md does the unit whose number Kubernetes gives it."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests.shards.helpers import Set

PAGE = Path(__file__).parents[3] / "docs/shards.md"


def run_pod(planned: Set, index: int) -> subprocess.CompletedProcess[str]:
    """Run the command of the container, with lgbatch on PATH and the workspace of the test."""
    (line,) = re.findall(r"^ +command: (\[.*\])$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    command = [word.replace("/set/out", shlex.quote(str(planned.out))) for word in json.loads(line)]
    programs = planned.out / "bin"
    programs.mkdir(exist_ok=True)
    (programs / "lgbatch").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m lgbatch "$@"\n')
    (programs / "lgbatch").chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "JOB_COMPLETION_INDEX": str(index)}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_a_pod_does_its_unit(planned: Set) -> None:
    first, second = planned.plan(2).units
    pod = run_pod(planned, 1)
    assert pod.returncode == 0 and pod.stdout.startswith(second.name)
    assert not planned.folder.marker("extract-1", first.name).exists()
    assert run_pod(planned, 2).returncode == 1  # there is no such unit


def test_a_pod_whose_photos_failed_has_succeeded(planned: Set, tmp_path: Path) -> None:
    planned.photos = tmp_path / "photos"
    planned.photos.mkdir()
    (planned.photos / "a.png").write_bytes(b"no photo")
    planned.plan(1)
    pod = run_pod(planned, 0)
    assert pod.returncode == 0 and "0 of 1 done" in pod.stdout
