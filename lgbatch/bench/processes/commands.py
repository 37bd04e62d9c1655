"""Commands that the benchmarks run as processes of their own."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lgbatch.config import Settings
from lgbatch.errors import LgbatchError


def write_config(path: Path, settings: Settings) -> Path:
    """Write settings as a file for `--config`. Returns its path."""
    # Strings and numbers have the same syntax in JSON and TOML.
    path.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.as_dict().items()))
    return path


def run_module(arguments: Sequence[str]) -> str:
    """Run a module with its arguments. Returns its standard output.

    Raises LgbatchError if its exit status is not 0, or 1: some items failed.
    """
    process = subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True)
    if process.returncode not in (0, 1):
        reason = (process.stderr.strip().splitlines() or ["no message"])[-1]
        raise LgbatchError(f"{' '.join(arguments[:2])} failed: {reason}; run it alone to see more")
    return process.stdout
