"""Databases that another program has open or left unfinished, and full disks."""

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath

import pytest

from lgbatch.colmap import sqlite
from lgbatch.colmap.database import DatabaseCounts
from lgbatch.colmap.log import colmap_log_off
from lgbatch.colmap.sqlite import commit_draft, open_draft, uri
from lgbatch.errors import DatabaseError
from lgbatch.types import Pair
from tests.colmap.helpers import array, run_script
from tests.helpers.synthetic import SIZE, Source, content
from tests.helpers.synthetic import import_source as run


def test_the_changes_in_the_log_of_a_killed_program_are_kept(database: Path, source: Source) -> None:
    run(database, source)
    script = (
        "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('pragma journal_mode=wal');"
        "c.execute('update cameras set prior_focal_length = 1 where camera_id = 2'); c.commit(); os._exit(0)"
    )
    run_script(script, database)
    assert database.with_name("database.db-wal").stat().st_size > 0
    source.matches[Pair("a.jpg", "c.jpg")] = array([[0, 1]])
    assert run(database, source) == DatabaseCounts(pairs=1, matches=1)
    assert [p.name for p in database.parent.glob("database*")] == ["database.db"]
    assert run_script(
        "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute("
        "'select camera_id from cameras where prior_focal_length').fetchall())",
        database,
    ).startswith("[(2,)]")


def test_a_log_without_its_database_is_ignored(database: Path, source: Source) -> None:
    database.with_name("database.db-wal").write_bytes(b"left over")
    assert run(database, source).images == 3
    assert [p.name for p in database.parent.glob("database*")] == ["database.db"]


@contextmanager
def opened_elsewhere(database: Path, seconds: float, statement: str = "delete from matches") -> Iterator[None]:
    """Another program runs `statement` in a transaction and has the database open for `seconds`, or until block end."""
    script = (
        "import sqlite3, sys, select; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        f"c.execute('pragma journal_mode=wal'); c.execute('begin immediate'); c.execute({statement!r});"
        "print(flush=True); select.select([sys.stdin], [], [], float(sys.argv[2]));"
        "c.execute('rollback') if c.in_transaction else 0; c.close()"
    )
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", script, str(database), str(seconds)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as other:
        other.stdout.readline()
        yield


def test_a_database_in_use_is_not_replaced(
    database: Path, source: Source, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sqlite, "WAIT_SECONDS", 0.3)
    run(database, source)
    with opened_elsewhere(database, 60):
        with pytest.raises(DatabaseError, match="open in another program"):
            run(database, source)
        with colmap_log_off(), pytest.raises(DatabaseError, match="in use"):
            sqlite.open_database(database)
    assert run(database, source) == DatabaseCounts()
    line = f"lgbatch: {database} is open in another program (COLMAP?): waiting up to 0 s for it\n"
    assert capfd.readouterr() == ("", 2 * line)


def test_a_database_that_is_open_but_idle_is_not_replaced(
    database: Path, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "WAIT_SECONDS", 0.3)
    run(database, source)
    with (
        opened_elsewhere(database, 60, statement="commit"),
        pytest.raises(DatabaseError, match="open in another program"),
    ):
        run(database, source)
    assert run(database, source) == DatabaseCounts()


@pytest.mark.parametrize("action", ["import", "open"])
def test_import_and_open_wait_for_a_database_in_use(
    database: Path, source: Source, action: str, capfd: pytest.CaptureFixture[str]
) -> None:
    run(database, source)
    with opened_elsewhere(database, 1.0):
        if action == "import":
            assert run(database, source) == DatabaseCounts()
        else:
            with colmap_log_off():
                sqlite.open_database(database).close()
    assert capfd.readouterr().err.count("waiting up to 20 s") == 1


def test_the_log_of_colmap_is_silent(database: Path, source: Source, capfd: pytest.CaptureFixture[str]) -> None:
    run(database, source)
    (database.parent / "images" / "d.jpg").write_text("hello")
    source.points["d.jpg"], source.sizes["d.jpg"] = source.points["b.jpg"], SIZE
    run(database, source)
    assert capfd.readouterr() == ("", "")


FULL_DISK = """
    import resource, sys
    from pathlib import Path
    from lgbatch.errors import DatabaseError
    from tests.helpers.synthetic import import_source, scene
    database, limit = Path(sys.argv[1]), int(sys.argv[2])
    source = scene(database.parent / "images", tuple(f"{i}.jpg" for i in range(30)), count=200)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        import_source(database, source)
    except DatabaseError as error:
        print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on file sizes")
@pytest.mark.parametrize("limit", [0, 50_000, 250_000, 300_000])
def test_a_full_disk_is_one_line_and_leaves_no_file(database: Path, limit: int) -> None:
    command = [sys.executable, "-c", textwrap.dedent(FULL_DISK), str(database), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert (done.returncode, done.stderr) == (0, "")
    assert "free space" in done.stdout and "delete" not in done.stdout and done.stdout.count("\n") == 1
    assert sorted(path.name for path in database.parent.iterdir()) == ["images"]


def test_a_draft_with_an_unmerged_log_is_not_committed(database: Path, source: Source) -> None:
    run(database, source)
    before = content(database)
    with pytest.raises(DatabaseError, match="free space"), open_draft(database) as draft:
        draft.with_name(draft.name + "-wal").write_bytes(b"unmerged")
        commit_draft(draft, database)
    assert content(database) == before
    assert not list(database.parent.glob("*.partial*"))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (PurePosixPath("/a b/d#1?.db"), "file:///a%20b/d%231%3F.db"),
        (PureWindowsPath("C:/photos/d.db"), "file:///C:/photos/d.db"),
        (PureWindowsPath("//server/share/d.db"), "file:////server/share/d.db"),
    ],
)
def test_paths_become_uris_that_sqlite_takes(path: PurePath, expected: str) -> None:
    assert uri(path) == expected
