"""lgbatch's command line with slow stand-ins for the networks, as a separate program.

Run [*COMMAND, SECONDS, *ARGUMENTS]: each photo and each batch of pairs takes SECONDS.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lgbatch.api import matching, steps
from lgbatch.cli.main import main as run_cli
from lgbatch.pipelines import sfm
from tests.helpers import stand_in

_ROOT = Path(__file__).parents[2]
COMMAND = [
    sys.executable,
    "-c",
    f"import sys; sys.path.insert(0, {str(_ROOT)!r}); from tests.helpers.slow_cli import main; main()",
]


def slowed(function: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    """The function, preceded by a pause."""

    def slow(*arguments: Any) -> Any:
        time.sleep(seconds)
        return function(*arguments)

    return slow


def main() -> None:
    seconds = float(sys.argv.pop(1))
    monkeypatch = pytest.MonkeyPatch()
    stand_in.StandIn.use(monkeypatch)
    for module in matching, steps, sfm:
        monkeypatch.setattr(module, "ensure_models", lambda *_: None)
    monkeypatch.setattr(stand_in._Extractor, "extract", slowed(stand_in._Extractor.extract, seconds))
    monkeypatch.setattr(stand_in._Matcher, "match", slowed(stand_in._Matcher.match, seconds))
    sys.argv[0] = "lgbatch"
    run_cli()
