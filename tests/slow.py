"""lgbatch's command line with stand-ins for the networks that take their time; run as a program of its own.

`python slow.py SECONDS [ARGUMENTS...]`; each photo, and each batch of pairs, takes SECONDS.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import stand_in

from lgbatch import cli
from lgbatch.pipelines import sfm


def slowed(work: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    def slow(*given: Any) -> Any:
        time.sleep(seconds)
        return work(*given)

    return slow


def main() -> None:
    seconds = float(sys.argv.pop(1))
    monkeypatch = pytest.MonkeyPatch()
    stand_in.StandIn.use(monkeypatch)
    for module in cli, sfm:
        monkeypatch.setattr(module, "ensure_models", lambda *_: None)
    monkeypatch.setattr(stand_in._Extractor, "extract", slowed(stand_in._Extractor.extract, seconds))
    monkeypatch.setattr(stand_in._Matcher, "match", slowed(stand_in._Matcher.match, seconds))
    sys.argv[0] = str(Path("lgbatch"))
    cli.main()


if __name__ == "__main__":
    main()
