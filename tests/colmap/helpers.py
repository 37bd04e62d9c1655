"""Helpers that the database tests share."""

import subprocess
import sys

import numpy as np


def run_script(script: str, *args: object) -> str:
    """Run Python code in a child process and return its output.

    SQLite locks need a second process: sqlite3 and pycolmap in one process do not see each other's locks.
    """
    command = [sys.executable, "-c", script, *map(str, args)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def array(rows: list[list[float]], dtype: type = np.int32) -> np.ndarray:
    return np.array(rows, dtype)
