import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from lgbatch.cli import main as cli
from lgbatch.config import Settings
from lgbatch.errors import LgbatchError, WorkspaceError
from lgbatch.features import extract as extract_module
from lgbatch.features.extract import Extracted, extract
from lgbatch.matching.match import Matched, match
from lgbatch.pairing.candidates import exhaustive
from lgbatch.pairing.pairs_file import write_pairs
from lgbatch.pipelines.summary import Summary
from lgbatch.storage.features import FeatureStore
from lgbatch.types import Failure
from lgbatch.workspace.folder import Workspace
from lgbatch.workspace.ledger import Ledger
from tests.helpers.stand_in import StandIn

ODD = "day \udcff\n'\"<b>\U0001f4f7.jpg"


def reasons(folder: Path) -> dict[str, str]:
    return {entry.name: entry.reason for entry in Ledger(folder).entries()}


def test_what_was_added_is_there_again_to_the_byte(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.add(Failure("extract", ODD, "why\nnot", "Traceback\n  …"), {"file": [7, 8]})
    (entry,) = Ledger(tmp_path).entries()
    assert (entry.stage, entry.name, entry.reason, entry.traceback) == ("extract", ODD, "why\nnot", "Traceback\n  …")
    assert entry.signature == {"file": [7, 8]}
    assert len(ledger.path.read_bytes().splitlines()) == 1
    assert ledger.path.read_bytes().isascii()


@pytest.mark.parametrize("torn", [b'{"stage": "extract", "na', b"\xff\xfe\0", b"[]", b'{"stage": 1}', b"null"])
def test_a_torn_last_line_is_ignored_and_does_not_spoil_the_next(tmp_path: Path, torn: bytes) -> None:
    Ledger(tmp_path).add(Failure("extract", "a", "first"))
    with (tmp_path / "errors.jsonl").open("ab") as file:
        file.write(torn)
    Ledger(tmp_path).add(Failure("extract", "b", "second"))
    assert reasons(tmp_path) == {"a": "first", "b": "second"}
    ledger = Ledger(tmp_path)
    ledger.finish({"extract"}, [Failure("extract", "b", "second")])
    assert len(ledger.path.read_bytes().splitlines()) == 1


def test_a_killed_process_leaves_what_it_added(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from lgbatch.workspace.ledger import Ledger, Failure;"
        "ledger = Ledger(Path(sys.argv[1]));"
        "[ledger.add(Failure('extract', str(i), 'reason')) for i in range(5)]; os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)]).returncode != 0
    assert list(reasons(tmp_path)) == list("01234")


def test_only_stages_that_are_over_lose_entries(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for stage in "crawl", "extract", "match":
        ledger.add(Failure(stage, "a", stage))
    ledger.finish({"crawl", "extract"}, [Failure("crawl", "a", "crawl")])
    assert [entry.stage for entry in Ledger(tmp_path).entries()] == ["crawl", "match"]
    ledger.finish({"crawl", "match"}, [])
    assert not ledger.path.exists()


def test_old_failures_do_not_count_towards_the_limit(tmp_path: Path) -> None:
    first = Ledger(tmp_path, limit=1)
    first.add(Failure("pairs", "line 1", "bad"))
    first.check()
    again = Ledger(tmp_path, limit=1)
    again.add(Failure("pairs", "line 1", "bad"))
    again.add(Failure("pairs", "line 2", "bad"))
    assert not again.full
    again.add(Failure("pairs", "line 3", "bad"))
    with pytest.raises(LgbatchError, match=r"stopped after 2 new failures \(--max-errors 1\)"):
        again.check()


def test_a_ledger_that_cannot_be_read_or_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "errors.jsonl").mkdir()
    with pytest.raises(WorkspaceError, match="cannot read"):
        Ledger(tmp_path)
    with pytest.raises(WorkspaceError, match="cannot write"):
        Ledger(tmp_path / "gone").add(Failure("extract", "a", "b"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four good photos and three bad ones."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in "abcd":
        cv2.imwrite(str(folder / f"{name}.png"), np.full((48, 64, 3), 99, np.uint8))
    for number in range(3):
        (folder / f"bad{number}.jpg").write_text("no photo")
    return folder


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A stand-in for the extractor; the names of all photos that decoding was tried on."""
    StandIn.use(monkeypatch)
    names: list[str] = []
    decode = extract_module.decode

    def noted(ref, *rest):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN002, ANN202
        names.append(ref.name)
        return decode(ref, *rest)

    monkeypatch.setattr(extract_module, "decode", noted)
    return names


def extracted(photos: Path, out: Path, retry_failed: bool = False, **changes: int) -> Extracted:
    settings = Settings.load(**changes)
    return extract(photos, out / "features.h5", models=out, settings=settings, retry_failed=retry_failed)


def test_a_failed_photo_is_not_tried_again_but_still_counted(photos: Path, tmp_path: Path, tries: list[str]) -> None:
    first = extracted(photos, tmp_path)
    assert len(tries) == 7 and first.new == 4
    cv2.imwrite(str(photos / "e.png"), np.zeros((48, 64, 3), np.uint8))
    tries.clear()
    again = extracted(photos, tmp_path)
    assert tries == ["e.png"]
    assert (again.new, again.images, again.failures) == (1, 8, first.failures)
    summary = Summary(Settings())
    summary.add_extracted(again)
    assert (summary.failed_images, summary.exit_status) == (3, 1)
    assert "Traceback" not in json.dumps(summary.as_dict())
    kept = Ledger(tmp_path).entries()
    assert all("lgbatch.errors.ItemError" in entry.traceback and "decode.py" in entry.traceback for entry in kept)


def test_a_failed_photo_is_tried_again_when_asked_to_or_changed(photos: Path, tmp_path: Path, tries: list[str]) -> None:
    extracted(photos, tmp_path)
    tries.clear()
    assert len(extracted(photos, tmp_path, retry_failed=True).failures) == 3
    assert sorted(tries) == ["bad0.jpg", "bad1.jpg", "bad2.jpg"]
    tries.clear()
    cv2.imwrite(str(photos / "bad1.jpg"), np.full((48, 64, 3), 99, np.uint8))
    (photos / "bad2.jpg").unlink()
    again = extracted(photos, tmp_path)
    assert tries == ["bad1.jpg"]
    assert again.new == 1
    assert list(reasons(tmp_path)) == ["bad0.jpg"]


def test_a_setting_that_made_it_fail_makes_it_tried_again(photos: Path, tmp_path: Path, tries: list[str]) -> None:
    cv2.imwrite(str(photos / "large.png"), np.zeros((1001, 1000, 3), np.uint8))
    assert "large.png" in {failure.name for failure in extracted(photos, tmp_path, max_megapixels=1).failures}
    tries.clear()
    assert extracted(photos, tmp_path, max_megapixels=2).new == 1
    assert "large.png" in tries


def test_a_ledger_that_was_deleted_has_all_tried_again(photos: Path, tmp_path: Path, tries: list[str]) -> None:
    extracted(photos, tmp_path)
    (tmp_path / "errors.jsonl").unlink()
    tries.clear()
    extracted(photos, tmp_path)
    assert len(tries) == 3 and len(reasons(tmp_path)) == 3


def test_too_many_new_failures_stop_the_stage_and_keep_what_is_finished(
    photos: Path, tmp_path: Path, tries: list[str]
) -> None:
    for name in ("a", "b"):
        (photos / f"{name}.png").rename(photos / f"0{name}.png")  # before the bad ones
    with pytest.raises(LgbatchError, match=r"stopped after 2 new failures \(--max-errors 1\).*`lgbatch errors -w "):
        extracted(photos, tmp_path, max_errors=1)
    with FeatureStore(tmp_path / "features.h5") as store:
        assert store.names() == ["0a.png", "0b.png"]
    assert len(reasons(tmp_path)) == 2
    assert extracted(photos, tmp_path, max_errors=1).new == 2  # one new failure


def test_an_unforeseen_error_of_one_photo_ends_no_run(
    photos: Path, tmp_path: Path, tries: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(ref: object, *_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(extract_module, "decode", fail)
    assert {failure.reason for failure in extracted(photos, tmp_path).failures} == {"MemoryError"}


def matched(files: Workspace, retry_failed: bool = False, **changes: int) -> Matched:
    settings = Settings.load(**changes)
    return match(
        files.pairs, files.features, files.matches, models=files.root, settings=settings, retry_failed=retry_failed
    )


def test_pairs_of_a_failed_photo_are_skipped_and_counted(photos: Path, tmp_path: Path, tries: list[str]) -> None:
    files = Workspace(tmp_path)
    extracted(photos, tmp_path)
    write_pairs(files.pairs, exhaustive(["a.png", "b.png", "bad0.jpg", "unknown.jpg"]))
    with files.pairs.open("a") as file:
        file.write("one two three\n")
    done = matched(files)
    assert (done.pairs, done.new, done.skipped_pairs) == (6, 1, 3)
    assert [failure.stage for failure in done.failures] == ["pairs", "match", "match"]
    assert {entry.stage for entry in Ledger(tmp_path).entries()} == {"extract", "pairs", "match"}
    write_pairs(files.pairs, exhaustive(["a.png", "b.png", "bad0.jpg"]))
    done = matched(files)
    assert (done.pairs, done.skipped_pairs, done.failures) == (3, 2, ())
    assert {entry.stage for entry in Ledger(tmp_path).entries()} == {"extract"}
    summary = Summary(Settings())
    summary.add_matched(done)
    assert summary.exit_status == 1 and "skipped: 2 of failed images" in summary.format()


def test_unreadable_features_are_one_failure_not_one_for_each_pair(
    photos: Path, tmp_path: Path, tries: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Workspace(tmp_path)
    extracted(photos, tmp_path)
    names = ["a.png", "b.png", "c.png", "d.png"]
    write_pairs(files.pairs, exhaustive(names))
    read: list[str] = []
    StandIn.break_features(monkeypatch, "b.png", read)
    done = matched(files)
    assert [(failure.stage, failure.name) for failure in done.failures] == [("match", "b.png")]
    assert (done.new, done.skipped_pairs, read.count("b.png")) == (3, 3, 1)
    write_pairs(files.pairs, exhaustive(names)[::-1])
    again = matched(files)
    assert (again.new, again.skipped_pairs, again.failures) == (0, 3, done.failures)
    assert read.count("b.png") == 1
    monkeypatch.undo()
    StandIn.use(monkeypatch)
    assert matched(files, retry_failed=True).new == 3
    assert "b.png" not in reasons(tmp_path)


def test_too_many_broken_images_stop_matching(
    photos: Path, tmp_path: Path, tries: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Workspace(tmp_path)
    extracted(photos, tmp_path)
    write_pairs(files.pairs, exhaustive(["a.png", "b.png", "c.png", "d.png"]))
    StandIn.break_features(monkeypatch, "", [])
    with pytest.raises(LgbatchError, match="stopped after 2 new failures"):
        matched(files, max_errors=1)
    assert Ledger(tmp_path).entries()


def test_the_command_lists_them(photos: Path, tmp_path: Path, tries: list[str]) -> None:
    extracted(photos, tmp_path)
    Ledger(tmp_path).add(Failure("pairs", ODD, "why not"))

    def told(*options: str) -> str:
        result = CliRunner().invoke(cli.app, ["errors", "-w", str(tmp_path), *options])
        assert result.exit_code == 0, result.stderr
        return result.stdout

    lines = told().splitlines()
    assert len(lines) == 4
    assert "failed: bad0.jpg (extract): not a photo" in lines[0]
    assert r"day \udcff\n'" in lines[-1]
    assert "Traceback" in told("--traceback") and "Traceback" not in told()
    errors = json.loads(told("--json"))["errors"]
    assert [error["name"] for error in errors][-1] == ODD
    assert errors[0]["signature"]["file"][0] == len("no photo")
    (tmp_path / "errors.jsonl").unlink()
    assert told() == f"no errors in {tmp_path}\n"
    result = CliRunner().invoke(cli.app, ["errors", "-w", str(tmp_path / "gone")])
    assert result.exit_code == 2 and "there is no folder" in result.stderr
