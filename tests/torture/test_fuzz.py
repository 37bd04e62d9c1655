"""Mutated files into every reader. Each reader runs in a process of its own, so that a native crash fails the test."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.torture.corpus import fuzz
from tests.torture.corpus.fuzz_targets import TARGETS
from tests.torture.harness import budget

SHORT = ("png", "pairs", "features", "config")
"""Targets of the short suite."""


@pytest.mark.parametrize("target", [pytest.param(t, marks=() if t in SHORT else pytest.mark.slow) for t in TARGETS])
def test_readers_raise_only_documented_exceptions(target: str, tmp_path: Path) -> None:
    seconds = budget.SECONDS / len(TARGETS)
    command = [sys.executable, "-m", fuzz.__name__, target, f"{seconds:.1f}", str(budget.SEED), tmp_path]
    timeout = seconds + fuzz.HANG_LIMIT + 10 * fuzz.TIME_LIMIT
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=timeout, cwd=budget.ROOT)
    if done.returncode < 0:
        kept = Path.cwd() / f"crash-{target.strip('.')}.bin"
        kept.write_bytes((tmp_path / "input").read_bytes())
        pytest.fail(f"{signal.Signals(-done.returncode).name}: see {kept}; {done.stderr[-500:]}")
    assert done.returncode == 0, done.stderr[-800:]
    report = json.loads(done.stdout.splitlines()[-1])
    budget.report(f"fuzz {target}: {report['inputs']} inputs, {report['outcomes']}, wrong {len(report['wrong'])}")
    assert not report["wrong"], f"in {tmp_path}: {report['wrong']}"
