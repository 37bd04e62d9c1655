"""Mutated files into every reader, each in a process of its own: a library that crashes is noticed."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.torture import figures
from tests.torture.fuzz import LONGEST
from tests.torture.fuzz_targets import TARGETS

SCRIPT = Path(__file__).parent / "fuzz.py"


SHORT = ("png", "pairs", "features", "config")


@pytest.mark.parametrize("target", [pytest.param(t, marks=() if t in SHORT else pytest.mark.slow) for t in TARGETS])
def test_only_documented_exceptions_come_out(target: str, tmp_path: Path) -> None:
    seconds = figures.SECONDS / len(TARGETS)
    command = [sys.executable, SCRIPT, target, f"{seconds:.1f}", str(figures.SEED), tmp_path]
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=seconds + 60 + 10 * LONGEST
    )
    if done.returncode == -signal.SIGALRM and target == "model":
        pytest.xfail("COLMAP counts on for very long where a model's file says so")
    if done.returncode < 0:
        kept = Path.cwd() / f"crash-{target.strip('.')}.bin"
        kept.write_bytes((tmp_path / "input").read_bytes())
        pytest.fail(f"{signal.Signals(-done.returncode).name}: see {kept}; {done.stderr[-500:]}")
    assert done.returncode == 0, done.stderr[-800:]
    found = json.loads(done.stdout.splitlines()[-1])
    figures.tell(f"fuzz {target}: {found['inputs']} inputs, {found['outcomes']}, wrong {len(found['wrong'])}")
    assert not found["wrong"], f"in {tmp_path}: {found['wrong']}"
