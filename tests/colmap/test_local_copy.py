"""Databases in folders without file locks are used through a local copy."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lgbatch.colmap import local_copy
from lgbatch.colmap.database import DatabaseCounts
from lgbatch.colmap.local_copy import has_locks, lockable
from lgbatch.errors import DatabaseError
from lgbatch.types import Pair
from tests.colmap.helpers import array
from tests.helpers.synthetic import Source, content
from tests.helpers.synthetic import import_source as run


@pytest.fixture
def temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files. All other folders are without locks."""
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setattr(local_copy, "has_locks", lambda path: path.is_relative_to(folder))
    return folder


def test_an_import_without_locks_equals_one_with_locks(database: Path, source: Source, temporary: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local_copy, "has_locks", lambda _: True)
        run(database.with_name("expected.db"), source)
    assert run(database, source).images == 3
    assert content(database) == content(database.with_name("expected.db"))
    before = database.stat()
    assert run(database, source) == DatabaseCounts()
    now = database.stat()
    assert (now.st_ino, now.st_mtime_ns) == (before.st_ino, before.st_mtime_ns) and not list(temporary.iterdir())
    source.matches[Pair("a.jpg", "c.jpg")] = array([[0, 1]])
    assert run(database, source) == DatabaseCounts(pairs=1, matches=1)
    assert sorted(path.name for path in database.parent.glob("*.db*")) == ["database.db", "expected.db"]


def test_the_log_of_a_killed_program_is_merged(database: Path, source: Source, temporary: Path) -> None:
    run(database, source)
    script = (
        "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('pragma journal_mode=wal');"
        "c.execute('delete from matches'); c.commit(); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", script, str(database)], check=True)
    with lockable(database) as local:
        assert content(local)["matches"] == {}
    assert content(database)["matches"] == {}
    assert [path.name for path in database.parent.glob("database*")] == ["database.db"]


def test_changes_before_an_exception_are_kept_and_its_message_names_the_database(
    database: Path, source: Source, temporary: Path
) -> None:
    run(database, source)
    with pytest.raises(DatabaseError) as error, lockable(database) as local:
        subprocess.run(
            [sys.executable, "-c", "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('vacuum')", str(local)],
            check=True,
        )
        local.write_bytes(local.read_bytes() + b"\0")
        raise DatabaseError(f"{local} is full")
    assert str(error.value) == f"{database} is full" and database.read_bytes()[-1] == 0


def test_a_failing_disk_leaves_the_database_as_it_was(
    database: Path, source: Source, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(database, source)
    before = database.read_bytes()
    copy = shutil.copyfile

    def fail(origin: Path, target: Path) -> None:
        if target.is_relative_to(database.parent):
            target.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        copy(origin, target)

    monkeypatch.setattr("shutil.copyfile", fail)
    source.matches[Pair("a.jpg", "c.jpg")] = array([[0, 1]])
    with pytest.raises(DatabaseError, match=r"database\.db: No space left on device; check free space"):
        run(database, source)
    assert database.read_bytes() == before
    assert [path.name for path in database.parent.glob("database*")] == ["database.db"]


def test_a_temporary_folder_without_locks_is_refused_with_the_way_out(
    database: Path, source: Source, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_copy, "has_locks", lambda _: False)
    with pytest.raises(DatabaseError, match=r"without file locks.*set TMPDIR to a folder on a local disk"):
        run(database, source)
    assert not database.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fcntl")
@pytest.mark.parametrize(("number", "locks"), [(errno.ENOLCK, False), (errno.ENOTSUP, False), (errno.EIO, True)])
def test_the_error_of_a_lock_tells_whether_there_are_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, locks: bool
) -> None:
    assert has_locks(tmp_path) and has_locks(tmp_path / "none")

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.lockf", fail)
    assert has_locks(tmp_path) == locks
    assert not list(tmp_path.iterdir())
