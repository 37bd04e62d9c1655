"""A join that is killed in a call that changes a file, at random: the next join finishes, and nothing is lost."""

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from lgbatch.errors import StoreError
from lgbatch.storage.joining.join import join
from lgbatch.storage.matches import MatchStore
from lgbatch.types import Pair
from tests.storage.joining.conftest import assert_equal_matches, write_matches
from tests.torture.conftest import FAULTS
from tests.torture.harness.faults import COUNT, KILL, TORN

NAMES = [f"{i:02d}.jpg" for i in range(30)]
PAIRS = sorted(Pair(a, b) for step in (NAMES, NAMES[::2], NAMES[::3], NAMES[::5]) for a, b in pairwise(step))
_JOIN = """
import sys
from pathlib import Path
from lgbatch.storage.joining import join
join._COMMIT_SECONDS = -1
target, links, *shards = sys.argv[1:]
join.join(Path(target), [Path(shard) for shard in shards], links=links == "links")
"""
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None, reason="needs Linux and a C compiler"
)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that kills a process in a call."""
    path = tmp_path_factory.mktemp("faults") / "faults.so"
    subprocess.run(["cc", "-O1", "-Wall", "-shared", "-fPIC", "-o", path, FAULTS, "-ldl"], check=True)
    return path


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    (tmp_path / "shards").mkdir()
    parts = [PAIRS[i::8] if i < 2 else PAIRS[i * 9 - 18 : i * 9 - 9] for i in range(9)]
    return [write_matches(tmp_path / "shards" / f"{i}.h5", part) for i, part in enumerate(parts)]


def run(library: Path, target: Path, shards: list[Path], form: str, mode: int, at: int) -> tuple[int, int]:
    """Join in a process with a fault. Returns its exit status and the number of calls."""
    log = target.parent.with_name("log")
    log.unlink(missing_ok=True)
    fault = "\n".join(map(str, (target.parent, log, mode, at, 0)))
    environment = dict(os.environ) | {"LD_PRELOAD": str(library), "LGBATCH_FAULTS": fault}
    command: list[str | Path] = [sys.executable, "-c", _JOIN, target, form, *shards]
    done = subprocess.run(command, env=environment, start_new_session=True, capture_output=True)
    return done.returncode, len(log.read_text().splitlines())


def stored(target: Path) -> set[Pair]:
    if not target.exists():
        return set()
    with MatchStore(target) as store:
        return set(store.pairs(NAMES))


def kills(count: int, calls: int, rng: random.Random) -> Iterator[tuple[int, int]]:
    for _ in range(count):
        yield rng.choice([KILL, TORN]), rng.randrange(1, calls + 1)


@pytest.mark.parametrize("form", ["copy", "links"])
@pytest.mark.parametrize("count", [6, pytest.param(100, marks=pytest.mark.slow)])
def test_killed_joins_are_finished(library: Path, shards: list[Path], tmp_path: Path, form: str, count: int) -> None:
    target, rng = tmp_path / "out" / "matches.h5", random.Random(count)
    expected = write_matches(tmp_path / "expected.h5", PAIRS)
    (tmp_path / "out").mkdir()
    status, calls = run(library, target, shards, form, COUNT, 0)
    assert status == 0 and calls > 5
    committed = stored(target)
    assert len(committed) == len(PAIRS)
    for mode, at in kills(count, calls, rng):
        if committed == set(PAIRS):
            shutil.rmtree(target.parent)
            target.parent.mkdir()
            committed = set()
        status, _ = run(library, target, shards, form, mode, at)
        now = stored(target)  # finishes the commit that was interrupted
        assert now >= committed, "an item that was committed is lost"
        committed = now
        if rng.random() < 0.5:
            join(target, shards, links=form == "links")
            assert_equal_matches(target, expected, NAMES)
            assert list(target.parent.iterdir()) == [target]
            committed = set(PAIRS)


def test_a_target_that_another_process_joins_is_in_use(shards: list[Path], tmp_path: Path) -> None:
    join(tmp_path / "m.h5", shards[:1])
    with (
        MatchStore(tmp_path / "m.h5", append={}),
        pytest.raises(StoreError, match=r"m\.h5 is in use by another program"),
    ):
        join(tmp_path / "m.h5", shards)
