"""lgbatch's command line with stand-ins for the networks that take their time; run as a program of its own.

`[*COMMAND, SECONDS, ...]`: each photo, and each batch of pairs, takes SECONDS; the rest are arguments of lgbatch.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lgbatch.cli import stages
from lgbatch.cli.main import main as run_cli
from lgbatch.pipelines import sfm
from tests.helpers import stand_in

_ROOT = Path(__file__).parents[2]
COMMAND = [
    sys.executable,
    "-c",
    f"import sys; sys.path.insert(0, {str(_ROOT)!r}); from tests.helpers.slow_cli import main; main()",
]


def slowed(work: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    def slow(*given: Any) -> Any:
        time.sleep(seconds)
        return work(*given)

    return slow


def main() -> None:
    seconds = float(sys.argv.pop(1))
    monkeypatch = pytest.MonkeyPatch()
    stand_in.StandIn.use(monkeypatch)
    for module in stages, sfm:
        monkeypatch.setattr(module, "ensure_models", lambda *_: None)
    monkeypatch.setattr(stand_in._Extractor, "extract", slowed(stand_in._Extractor.extract, seconds))
    monkeypatch.setattr(stand_in._Matcher, "match", slowed(stand_in._Matcher.match, seconds))
    sys.argv[0] = str(Path("lgbatch"))
    run_cli()
