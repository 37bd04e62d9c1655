"""Files of items that survive: runs that raise, are killed, meet each other, or a full disk."""

import random
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import h5py
import pytest

from lgbatch.errors import StoreError
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.journal import journal_path
from lgbatch.storage.matches import MatchStore
from lgbatch.types import Pair
from tests.storage.test_store import HERE, MADE, assert_equal, features, matches, one_line


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "features.h5"


def test_a_block_that_raises_keeps_what_it_committed(path: Path) -> None:
    with pytest.raises(RuntimeError), FeatureStore(path, append=MADE) as store:
        store.write("a.jpg", features(1))
        store.commit()
        store.write("b.jpg", features(2))
        raise RuntimeError
    with FeatureStore(path, append=MADE) as store:
        assert store.names() == ["a.jpg"]
        store.write("b.jpg", features(2))
    with FeatureStore(path) as store:
        assert_equal(store.read("b.jpg"), features(2))


def test_the_journal_of_a_deleted_file_is_not_replayed(path: Path) -> None:
    journal_path(path).write_bytes(b"of the file before")
    with FeatureStore(path, append=MADE) as store:
        store.write("a.jpg", features(1))
        assert not journal_path(path).exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
def test_two_runs_do_not_write_or_read_at_once(path: Path) -> None:
    with FeatureStore(path, append=MADE):
        for append in None, MADE:
            with pytest.raises(StoreError) as error:
                FeatureStore(path, append=append)
            one_line(error, str(path), "in use by another program")
    with FeatureStore(path) as first, FeatureStore(path) as second:
        assert first.names() == second.names() == []


FULL_DISK = """
    import resource, sys
    from pathlib import Path
    from lgbatch.errors import StoreError
    from lgbatch.storage.features import FeatureStore
    from tests.storage.test_store import MADE, features
    path, limit = Path(sys.argv[1]), int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    committed = 0
    try:
        with FeatureStore(path, append=MADE) as store:
            for i in range(1000):
                store.write(f"{i}.jpg", features(i))
                if i % 3 == 2:
                    store.commit()
                    committed = i + 1
    except StoreError as error:
        print(committed, error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit")
@pytest.mark.parametrize("limit", [100_000, 131_072, 150_001])
def test_a_full_disk_ends_in_one_line_and_keeps_what_was_committed(path: Path, limit: int) -> None:
    command = [sys.executable, "-c", textwrap.dedent(FULL_DISK), str(path), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=HERE)
    assert done.stderr == ""
    committed, _, told = done.stdout.strip().partition(" ")
    assert told.startswith("cannot write") and "File too large" in told and "\n" not in told
    with FeatureStore(path) as store:
        assert int(committed) > 2
        assert store.names() == sorted(f"{i}.jpg" for i in range(int(committed)))
        for i in range(int(committed)):
            assert_equal(store.read(f"{i}.jpg"), features(i))


WRITER = """
    import sys
    from pathlib import Path
    from lgbatch.storage.features import FeatureStore
    from lgbatch.storage.matches import MatchStore
    from lgbatch.types import Pair
    from tests.storage.test_store import MADE, features, matches
    folder, start = Path(sys.argv[1]), int(sys.argv[2])
    with (
        FeatureStore(folder / "features.h5", append=MADE) as written,
        MatchStore(folder / "matches.h5", append=MADE) as matched,
    ):
        assert len(written.names()) == start <= len(list(matched.groups()))
        for i in range(start, 10**6):
            if Pair(str(i), str(i + 1)) not in matched:
                matched.write(Pair(str(i), str(i + 1)), *matches(i))
            written.write(f"folder {i % 7}/{i}.jpg", features(i))
            if i % 3 == 2:
                matched.commit()
                written.commit()
                print(i + 1, flush=True)
"""


def write_until_killed(folder: Path, start: int, seconds: float) -> int:
    """Let another process append from item `start`, kill it some time after a commit; what it said is committed."""
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(folder), str(start)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=HERE) as writer:
        assert writer.stdout is not None
        said = [writer.stdout.readline()]
        time.sleep(seconds)
        writer.kill()
        said += writer.stdout.readlines()
    return int([line for line in said if line.endswith("\n")][-1])


def test_killed_at_any_instant_nothing_committed_is_lost(tmp_path: Path) -> None:
    rng, start = random.Random(time.time_ns()), 0
    for _ in range(15):
        committed = write_until_killed(tmp_path, start, rng.uniform(0, 0.1))
        with FeatureStore(tmp_path / "features.h5") as written, MatchStore(tmp_path / "matches.h5") as matched:
            start, pairs = len(written.names()), len(list(matched.groups()))
            assert committed <= start <= pairs <= committed + 3  # the last commit may have gone unsaid
            for i in range(start):
                assert_equal(written.read(f"folder {i % 7}/{i}.jpg"), features(i))
            for i in range(pairs):
                assert_equal(matched.read(Pair(str(i), str(i + 1))), matches(i)[0])
        for name in "features.h5", "matches.h5":
            assert not journal_path(tmp_path / name).exists()
            h5py.File(tmp_path / name, "r").close()
