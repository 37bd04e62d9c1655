"""How long to torture, from the environment, and what was done, which conftest.py prints at the end.

TORTURE_KILLS      processes to kill at random moments (10)
TORTURE_WORK       how slow the stand-in networks are then: some seconds each, so that there are several commits (400)
TORTURE_FAULTS     of the calls that change a file, every so many-th fails; 1 is each (167)
TORTURE_ERRORS     1: each of these calls with every error; 0: with one, in turn (0)
TORTURE_SECONDS    of fuzzing, for all readers together (14)
TORTURE_SEED       (0)
TORTURE_PHOTOS     folder of photos for the real models (fountain-P11, where it is)
"""

import os
from pathlib import Path

KILLS, WORK, FAULTS, SEED = (
    int(os.environ.get(f"TORTURE_{name}", default))
    for name, default in (("KILLS", 10), ("WORK", 400), ("FAULTS", 167), ("SEED", 0))
)
ALL_ERRORS = os.environ.get("TORTURE_ERRORS", "0") == "1"
SECONDS = float(os.environ.get("TORTURE_SECONDS", 14))

PHOTOS = Path(
    os.environ.get("TORTURE_PHOTOS") or Path(__file__).parents[3] / "shared" / "data" / "fountain-P11" / "images"
)

told: list[str] = []


def tell(line: str) -> None:
    """Have a line printed at the end of the session."""
    told.append(line)
