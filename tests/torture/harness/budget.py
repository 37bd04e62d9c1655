"""How much to torture, from environment variables, and the report lines that conftest.py prints at the end.

TORTURE_KILLS      number of processes killed at random moments (10)
TORTURE_WORK       matrix products that slow each stand-in network in the kill tests: a run takes seconds and commits
                   several times (400)
TORTURE_FAULTS     stride: every n-th call that changes a file fails; 1 fails each (167)
TORTURE_ERRORS     1: try every error on each of these calls; 0: one error per call, in turn (0)
TORTURE_SECONDS    seconds of fuzzing, over all readers (14)
TORTURE_SEED       random seed (0)
TORTURE_PHOTOS     folder of photos for the real models (fountain-P11, if present)
"""

import os
from pathlib import Path

KILLS, WORK, FAULTS, SEED = (
    int(os.environ.get(f"TORTURE_{name}", default))
    for name, default in (("KILLS", 10), ("WORK", 400), ("FAULTS", 167), ("SEED", 0))
)
ALL_ERRORS = os.environ.get("TORTURE_ERRORS", "0") == "1"
SECONDS = float(os.environ.get("TORTURE_SECONDS", 14))

ROOT = Path(__file__).parents[3]
"""The repository."""
PHOTOS = Path(os.environ.get("TORTURE_PHOTOS") or ROOT.parent / "shared" / "data" / "fountain-P11" / "images")

report_lines: list[str] = []


def report(line: str) -> None:
    """Print a line at the end of the session."""
    report_lines.append(line)
