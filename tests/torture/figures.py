"""How long to torture, from the environment, and what was done, which conftest.py prints at the end.

TORTURE_KILLS      processes to kill at random moments (4)
TORTURE_FAULTS     of the calls that change a file, every so many-th fails; 1 is each (29)
TORTURE_ERRORS     1: each of these calls with every error; 0: with one, in turn (0)
TORTURE_SECONDS    of fuzzing, for all readers together (10)
TORTURE_SEED       (0)
"""

import os

KILLS, FAULTS, SEED = (
    int(os.environ.get(f"TORTURE_{name}", default)) for name, default in (("KILLS", 4), ("FAULTS", 29), ("SEED", 0))
)
ALL_ERRORS = os.environ.get("TORTURE_ERRORS", "0") == "1"
SECONDS = float(os.environ.get("TORTURE_SECONDS", 10))

told: list[str] = []


def tell(line: str) -> None:
    """Have a line printed at the end of the session."""
    told.append(line)
