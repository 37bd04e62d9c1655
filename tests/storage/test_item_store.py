"""Stores keep committed items if a run raises, is killed, runs twice at once or fills the disk."""

import random
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import h5py
import pytest

from lgbatch.errors import StoreError
from lgbatch.storage.commit_journal import journal_path
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import MatchStore
from lgbatch.types import Pair
from tests.storage.test_store import PROVENANCE, ROOT, assert_equal, assert_one_line, features, matches


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "features.h5"


def test_an_exception_in_the_block_keeps_committed_items(path: Path) -> None:
    with pytest.raises(RuntimeError), FeatureStore(path, append=PROVENANCE) as store:
        store.write("a.jpg", features(1))
        store.commit()
        store.write("b.jpg", features(2))
        raise RuntimeError
    with FeatureStore(path, append=PROVENANCE) as store:
        assert store.names() == ["a.jpg"]
        store.write("b.jpg", features(2))
    with FeatureStore(path) as store:
        assert_equal(store.read("b.jpg"), features(2))


def test_the_journal_of_a_deleted_file_is_not_replayed(path: Path) -> None:
    journal_path(path).write_bytes(b"of the deleted file")
    with FeatureStore(path, append=PROVENANCE) as store:
        store.write("a.jpg", features(1))
        assert not journal_path(path).exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no flock")
def test_a_store_open_for_writing_is_locked(path: Path) -> None:
    with FeatureStore(path, append=PROVENANCE):
        for append in None, PROVENANCE:
            with pytest.raises(StoreError) as error:
                FeatureStore(path, append=append)
            assert_one_line(error, str(path), "in use by another program")
    with FeatureStore(path) as first, FeatureStore(path) as second:
        assert first.names() == second.names() == []


@pytest.mark.parametrize("part", ["keypoints", "scores", "descriptors", "image_size", "matches0"])
def test_photos_may_lie_in_folders_that_are_named_as_datasets(path: Path, part: str) -> None:
    names = sorted([f"{part}/a.jpg", f"{part}/{part}/b.jpg", f"room/{part}/c.jpg", "room/d.jpg", f"{part}.jpg"])
    with FeatureStore(path, append=PROVENANCE) as store:
        for i, name in enumerate(names):
            store.write(name, features(i))
    with FeatureStore(path, append=PROVENANCE) as store:
        assert store.names() == names
        for i, name in enumerate(names):
            assert_equal(store.read(name), features(i))
        store.remove(names[0])
    with FeatureStore(path) as store:
        assert store.names() == names[1:]
    pairs = [Pair(a, b) for a in names for b in names if a < b]
    with MatchStore(path.with_name("matches.h5"), append=PROVENANCE) as store:
        for i, pair in enumerate(pairs):
            store.write(pair, *matches(i))
    with MatchStore(path.with_name("matches.h5")) as store:
        assert sorted(store.pairs(names)) == pairs
        for i, pair in enumerate(pairs):
            assert_equal(store.read(pair), matches(i)[0])


FULL_DISK = """
    import resource, sys
    from pathlib import Path
    from lgbatch.errors import StoreError
    from lgbatch.storage.features import FeatureStore
    from tests.storage.test_store import PROVENANCE, features
    path, limit = Path(sys.argv[1]), int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    committed = 0
    try:
        with FeatureStore(path, append=PROVENANCE) as store:
            for i in range(1000):
                store.write(f"{i}.jpg", features(i))
                if i % 3 == 2:
                    store.commit()
                    committed = i + 1
    except StoreError as error:
        print(committed, error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no file size limit")
@pytest.mark.parametrize("limit", [100_000, 131_072, 150_001])
def test_a_full_disk_keeps_committed_items_and_raises_a_one_line_error(path: Path, limit: int) -> None:
    command = [sys.executable, "-c", textwrap.dedent(FULL_DISK), str(path), str(limit)]
    process = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert process.stderr == ""
    committed, _, message = process.stdout.strip().partition(" ")
    assert message.startswith("cannot write") and "File too large" in message and "\n" not in message
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
    from tests.storage.test_item_store import geometry
    from tests.storage.test_store import PROVENANCE, features, matches
    folder, start = Path(sys.argv[1]), int(sys.argv[2])
    with (
        FeatureStore(folder / "features.h5", append=PROVENANCE) as feature_store,
        MatchStore(folder / "matches.h5", append=PROVENANCE) as match_store,
    ):
        assert len(feature_store.names()) == start <= len(list(match_store.groups()))
        for i in range(start, 10**6):
            if Pair(str(i), str(i + 1)) not in match_store:
                match_store.write(Pair(str(i), str(i + 1)), *matches(i))
                match_store.set_geometry(Pair(str(i), str(i + 1)), geometry(i))
                match_store.set_geometry(Pair(str(i // 2), str(i // 2 + 1)), geometry(i))
            feature_store.write(f"folder {i % 7}/{i}.jpg", features(i))
            if i % 3 == 2:
                match_store.commit()
                feature_store.commit()
                print(i + 1, flush=True)
"""


def geometry(i: int) -> bytes:
    """A geometry for seed i."""
    return random.Random(i).randbytes(i * 37 % 2000)


def write_until_killed(folder: Path, start: int, seconds: float) -> int:
    """Let another process append from item `start`, kill it after a commit; return the number of committed items."""
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(folder), str(start)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as writer:
        assert writer.stdout is not None
        lines = [writer.stdout.readline()]
        time.sleep(seconds)
        writer.kill()
        lines += writer.stdout.readlines()
    return int([line for line in lines if line.endswith("\n")][-1])


def test_a_kill_at_any_instant_keeps_committed_items(tmp_path: Path) -> None:
    rng, start = random.Random(time.time_ns()), 0
    for _ in range(15):
        committed = write_until_killed(tmp_path, start, rng.uniform(0, 0.1))
        with (
            FeatureStore(tmp_path / "features.h5") as feature_store,
            MatchStore(tmp_path / "matches.h5") as match_store,
        ):
            start, pairs = len(feature_store.names()), len(list(match_store.groups()))
            assert committed <= start <= pairs <= committed + 3  # killed between the last commit and its print
            for i in range(start):
                assert_equal(feature_store.read(f"folder {i % 7}/{i}.jpg"), features(i))
            for i in range(pairs):
                assert_equal(match_store.read(Pair(str(i), str(i + 1))), matches(i)[0])
                last = max(j for j in (i, 2 * i, 2 * i + 1) if j < pairs)
                assert match_store.geometry(Pair(str(i), str(i + 1))) == geometry(last)
        for name in "features.h5", "matches.h5":
            assert not journal_path(tmp_path / name).exists()
            h5py.File(tmp_path / name, "r").close()
