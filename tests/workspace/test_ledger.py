import subprocess
import sys
from pathlib import Path

import pytest

from lgbatch.errors import LgbatchError, WorkspaceError
from lgbatch.types import Failure
from lgbatch.workspace.ledger import Ledger

ODD_NAME = "day \udcff\n'\"<b>\U0001f4f7.jpg"


def reasons(folder: Path) -> dict[str, str]:
    return {entry.name: entry.reason for entry in Ledger(folder).entries()}


def test_entries_are_read_back_exactly(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.add(Failure("extract", ODD_NAME, "why\nnot", "Traceback\n  …"), {"file": [7, 8]})
    (entry,) = Ledger(tmp_path).entries()
    assert entry.failure() == Failure("extract", ODD_NAME, "why\nnot")
    assert entry.traceback == "Traceback\n  …"
    assert entry.signature == {"file": [7, 8]}
    assert len(ledger.path.read_bytes().splitlines()) == 1
    assert ledger.path.read_bytes().isascii()


@pytest.mark.parametrize("torn", [b'{"stage": "extract", "na', b"\xff\xfe\0", b"[]", b'{"stage": 1}', b"null"])
def test_a_torn_last_line_is_skipped_and_does_not_corrupt_the_next(tmp_path: Path, torn: bytes) -> None:
    Ledger(tmp_path).add(Failure("extract", "a", "first"))
    with (tmp_path / "errors.jsonl").open("ab") as file:
        file.write(torn)
    Ledger(tmp_path).add(Failure("extract", "b", "second"))
    assert reasons(tmp_path) == {"a": "first", "b": "second"}
    ledger = Ledger(tmp_path)
    ledger.finish({"extract"}, [Failure("extract", "b", "second")])
    assert len(ledger.path.read_bytes().splitlines()) == 1


def test_entries_survive_kill_9(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from lgbatch.workspace.ledger import Ledger, Failure;"
        "ledger = Ledger(Path(sys.argv[1]));"
        "[ledger.add(Failure('extract', str(i), 'reason')) for i in range(5)]; os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)]).returncode != 0
    assert list(reasons(tmp_path)) == list("01234")


def test_finish_removes_entries_of_finished_stages_only(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for stage in "crawl", "extract", "match":
        ledger.add(Failure(stage, "a", stage))
    ledger.finish({"crawl", "extract"}, [Failure("crawl", "a", "crawl")])
    assert [entry.stage for entry in Ledger(tmp_path).entries()] == ["crawl", "match"]
    ledger.finish({"crawl", "match"}, [])
    assert not ledger.path.exists()


def test_known_failures_do_not_count_towards_the_limit(tmp_path: Path) -> None:
    first = Ledger(tmp_path, limit=1)
    first.add(Failure("pairs", "line 1", "bad"))
    first.check_limit()
    again = Ledger(tmp_path, limit=1)
    again.add(Failure("pairs", "line 1", "bad"))
    again.add(Failure("pairs", "line 2", "bad"))
    assert not again.limit_exceeded
    again.add(Failure("pairs", "line 3", "bad"))
    with pytest.raises(LgbatchError, match=r"stopped after 2 new failures \(--max-errors 1\)"):
        again.check_limit()


def test_an_unreadable_or_unwritable_ledger_raises_workspace_error(tmp_path: Path) -> None:
    (tmp_path / "errors.jsonl").mkdir()
    with pytest.raises(WorkspaceError, match="cannot read"):
        Ledger(tmp_path)
    with pytest.raises(WorkspaceError, match="cannot write"):
        Ledger(tmp_path / "gone").add(Failure("extract", "a", "b"))
