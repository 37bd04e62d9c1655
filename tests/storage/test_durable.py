"""replace_synced replaces a file atomically, or leaves it unchanged."""

import contextlib
import errno
import os
import stat
from pathlib import Path

import pytest

from lgbatch.storage import durable
from lgbatch.storage.durable import replace_synced


def test_replace_synced_creates_and_replaces_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for data in b"first", b"second":
        replace_synced(path, data)
        assert path.read_bytes() == data
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_failed_write_leaves_the_file_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"first")

    def fail(_: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "sync_folder", fail)
    with pytest.raises(OSError, match="No space left"):
        replace_synced(path, b"second")
    assert path.read_bytes() == b"first"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.name != "posix", reason="folders are synced on POSIX systems only")
@pytest.mark.parametrize(("number", "ignored"), [(errno.EINVAL, True), (errno.ENOTSUP, True), (errno.EIO, False)])
def test_a_file_system_that_does_not_sync_folders_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, ignored: bool
) -> None:
    sync = os.fsync

    def fsync(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, os.strerror(number))
        sync(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with contextlib.nullcontext() if ignored else pytest.raises(OSError):
        replace_synced(tmp_path / "file", b"data")
    assert [file.name for file in tmp_path.iterdir()] == (["file"] if ignored else [])


def test_a_failed_rename_removes_the_partial_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        replace_synced(tmp_path / "folder", b"data")
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]
