"""Journals that a killed process left are replayed onto the file that they belong to, and onto no other."""

import random
import struct
import zlib
from pathlib import Path

import pytest

from lgbatch.storage import journal
from lgbatch.storage.commit_journal import journal_path
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.journal import recover
from tests.storage.test_store import PROVENANCE, assert_equal, features


def left_by_a_kill(path: Path, names: str, provenance: dict[str, object]) -> None:
    """Write a store whose last commit was interrupted after its journal."""
    with FeatureStore(path, append=provenance) as store:
        for name in names[:-1]:
            store.write(name, features(ord(name)))
    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(KeyboardInterrupt),
        FeatureStore(path, append=provenance) as store,
    ):
        store.write(names[-1], features(ord(names[-1])))
        patch.setattr(journal, "apply_changes", interrupt)
        store.commit()
    assert journal_path(path).exists()


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_an_interrupted_commit_of_a_store_is_finished(tmp_path: Path) -> None:
    path = tmp_path / "features.h5"
    left_by_a_kill(path, "abc", PROVENANCE)
    with FeatureStore(path) as store:
        assert store.names() == ["a", "b", "c"]
        assert_equal(store.read("c"), features(ord("c")))


@pytest.mark.parametrize("names", ["x", "xy", "xyzuvw"])
@pytest.mark.parametrize("provenance", [PROVENANCE, {"extractor": "aliked"}])
def test_a_store_that_was_put_in_the_place_of_another_is_unchanged(
    tmp_path: Path, names: str, provenance: dict[str, object]
) -> None:
    path, other = tmp_path / "features.h5", tmp_path / "other.h5"
    left_by_a_kill(path, "abc", PROVENANCE)
    with FeatureStore(other, append=provenance) as store:
        for name in names:
            store.write(name, features(ord(name)))
    content = other.read_bytes()
    other.rename(path)
    with FeatureStore(path) as store:
        assert store.names() == sorted(names)
        for name in names:
            assert_equal(store.read(name), features(ord(name)))
    assert path.read_bytes() == content and not journal_path(path).exists()


def journal_1(committed: int, end: int, pages: dict[int, bytes]) -> bytes:
    """A journal as lgbatch 0.1 wrote it."""
    body = struct.pack("<QQ", committed, end) + b"".join(
        struct.pack("<Q", number) + page for number, page in pages.items()
    )
    return struct.pack("<8sQQ", b"LGBJRNL1", len(body), zlib.crc32(body)) + body


@pytest.mark.parametrize("grown", [0, 500])
def test_a_journal_of_lgbatch_0_1_is_replayed_onto_a_file_of_its_size_only(tmp_path: Path, grown: int) -> None:
    path, page = tmp_path / "file", 4096
    old = random.Random(0).randbytes(page + 1000)
    changed = b"x" * 1000
    left = journal_1(len(old), len(old) + grown, {1: changed + bytes(page - 1000)})
    for size, replayed in {len(old) + grown: True, len(old) + grown + 1: False, len(old) + grown - 1: False}.items():
        content = (old + bytes(1000))[:size]
        path.write_bytes(content)
        journal_path(path).write_bytes(left)
        recover(path)
        assert path.read_bytes() == (old[:page] + changed + content[len(old) :] if replayed else content)
        assert not journal_path(path).exists()
