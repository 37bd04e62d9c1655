"""Many shards of many pairs: all are joined, in bounded memory, and read as the import of the database does."""

import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from lgbatch.colmap.stored import StoredMatches
from lgbatch.storage.joining.join import join
from lgbatch.storage.matches import MatchStore
from lgbatch.types import Pair, PairList
from tests.storage.joining.conftest import assert_equal_matches, write_matches

_JOIN = """
import resource, sys
from pathlib import Path
from lgbatch.storage.joining.join import join
join(Path(sys.argv[1]), sorted(Path(sys.argv[2]).glob("*.h5")), links=sys.argv[3] == "links")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def planned(images: int, pairs: int) -> list[Pair]:
    """Pairs of images with the next ones."""
    names = [f"day {i % 7}/{i:05d}.jpg" for i in range(images)]
    every = (Pair(names[i], names[(i + step) % images]) for step in range(1, images) for i in range(images))
    return sorted(islice(every, pairs))


def write_shards(folder: Path, pairs: list[Pair], count: int) -> list[Path]:
    """Write shards with equal parts of the pairs: most groups are in one of them, some in two."""
    folder.mkdir()
    size = -(-len(pairs) // count)
    return [write_matches(folder / f"{i:04d}.h5", pairs[i * size : (i + 1) * size]) for i in range(count)]


@pytest.mark.parametrize("links", [False, True], ids=["copy", "links"])
def test_twenty_shards_of_two_thousand_pairs(tmp_path: Path, links: bool) -> None:
    pairs = planned(100, 2000)
    target, shards = tmp_path / "m.h5", write_shards(tmp_path / "shards", pairs, 20)
    joined = join(target, shards, links=links)
    assert joined.items == joined.added == 2000
    names = sorted({name for pair in pairs for name in pair})
    assert_equal_matches(target, write_matches(tmp_path / "one.h5", pairs), names)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["copy", "links"])
def test_the_memory_does_not_grow_with_the_pairs(tmp_path: Path, form: str) -> None:
    pairs = planned(1000, 40_000)
    write_shards(tmp_path / "shards", pairs, 200)
    command: list[str | Path] = [sys.executable, "-c", _JOIN, tmp_path / "m.h5", tmp_path / "shards", form]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert int(done.stdout) < 200_000  # kB
    with MatchStore(tmp_path / "m.h5") as store:
        versions = {}
        for pair in pairs:
            record = store.record(pair)
            assert record
            versions[pair] = record.versions
        source = StoredMatches(store, PairList.of(pairs), {})
        assert len(source.pairs()) == 0  # of images without features
        assert sum(len(source.indices(pair)) for pair in pairs) == store.points
