"""Databases that other programs have open, that were killed in, or that the disk is too full for."""

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lgbatch.colmap import sqlite as colmap
from lgbatch.colmap.database import DatabaseCounts
from lgbatch.colmap.log import colmap_log_off
from lgbatch.colmap.sqlite import open_draft, replace
from lgbatch.errors import DatabaseError
from lgbatch.types import Pair
from tests.colmap.test_database import array, sqlite
from tests.helpers.synthetic import SIZE, Source, content
from tests.helpers.synthetic import import_source as run


def test_the_log_of_a_killed_program_is_kept(database: Path, source: Source) -> None:
    run(database, source)
    script = (
        "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('pragma journal_mode=wal');"
        "c.execute('update cameras set prior_focal_length = 1 where camera_id = 2'); c.commit(); os._exit(0)"
    )
    sqlite(script, database)
    assert database.with_name("database.db-wal").stat().st_size > 0
    source.found[Pair("a.jpg", "c.jpg")] = array([[0, 1]])
    assert run(database, source) == DatabaseCounts(pairs=1, matches=1)
    assert [p.name for p in database.parent.glob("database*")] == ["database.db"]
    assert sqlite(
        "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute("
        "'select camera_id from cameras where prior_focal_length').fetchall())",
        database,
    ).startswith("[(2,)]")


def test_a_log_without_its_database_is_not_mixed_in(database: Path, source: Source) -> None:
    database.with_name("database.db-wal").write_bytes(b"left over")
    assert run(database, source).images == 3
    assert [p.name for p in database.parent.glob("database*")] == ["database.db"]


@contextmanager
def held(database: Path, seconds: float, doing: str = "delete from matches") -> Iterator[None]:
    """Another program has the database open: until the block ends, or for so many seconds."""
    script = (
        "import sqlite3, sys, select; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        f"c.execute('pragma journal_mode=wal'); c.execute('begin immediate'); c.execute({doing!r});"
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
    monkeypatch.setattr(colmap, "WAIT_SECONDS", 0.3)
    run(database, source)
    with held(database, 60):
        with pytest.raises(DatabaseError, match="open in another program"):
            run(database, source)
        with colmap_log_off(), pytest.raises(DatabaseError, match="in use"):
            colmap.open_database(database)
    assert run(database, source) == DatabaseCounts()
    line = f"lgbatch: {database} is open in another program (COLMAP?): waiting up to 0 s for it\n"
    assert capfd.readouterr() == ("", 2 * line)


def test_a_database_that_another_program_only_has_open_is_not_replaced(
    database: Path, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(colmap, "WAIT_SECONDS", 0.3)
    run(database, source)
    with held(database, 60, doing="commit"), pytest.raises(DatabaseError, match="open in another program"):
        run(database, source)
    assert run(database, source) == DatabaseCounts()


@pytest.mark.parametrize("how", ["import", "open"])
def test_a_database_in_use_is_waited_for(
    database: Path, source: Source, how: str, capfd: pytest.CaptureFixture[str]
) -> None:
    run(database, source)
    with held(database, 1.0):
        if how == "import":
            assert run(database, source) == DatabaseCounts()
        else:
            with colmap_log_off():
                colmap.open_database(database).close()
    assert capfd.readouterr().err.count("waiting up to 20 s") == 1


def test_nothing_is_printed(database: Path, source: Source, capfd: pytest.CaptureFixture[str]) -> None:
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


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit")
@pytest.mark.parametrize("limit", [0, 50_000, 250_000, 300_000])
def test_a_full_disk_ends_in_one_line_and_leaves_nothing(database: Path, limit: int) -> None:
    command = [sys.executable, "-c", textwrap.dedent(FULL_DISK), str(database), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert (done.returncode, done.stderr) == (0, "")
    assert "free space" in done.stdout and "delete" not in done.stdout and done.stdout.count("\n") == 1
    assert sorted(path.name for path in database.parent.iterdir()) == ["images"]


def test_a_draft_whose_log_is_not_folded_in_does_not_replace_the_database(database: Path, source: Source) -> None:
    run(database, source)
    before = content(database)
    with pytest.raises(DatabaseError, match="free space"), open_draft(database) as draft:
        draft.with_name(draft.name + "-wal").write_bytes(b"what SQLite could not fold in")
        replace(draft, database)
    assert content(database) == before
    assert not list(database.parent.glob("*.partial*"))
