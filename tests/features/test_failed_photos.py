"""Photos that fail in extraction, and pairs of such photos: when they are tried again, and how they are counted."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from lgbatch.cli import main as cli
from lgbatch.config import Settings
from lgbatch.errors import LgbatchError, OutOfMemory
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

ODD_NAME = "day \udcff\n'\"<b>\U0001f4f7.jpg"


def reasons(folder: Path) -> dict[str, str]:
    return {entry.name: entry.reason for entry in Ledger(folder).entries()}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four valid photos and three unreadable ones."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in "abcd":
        cv2.imwrite(str(folder / f"{name}.png"), np.full((48, 64, 3), 99, np.uint8))
    for number in range(3):
        (folder / f"bad{number}.jpg").write_text("no photo")
    return folder


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Use the stand-in extractor. Returns a list that collects the names of decoded photos, readable or not."""
    StandIn.use(monkeypatch)
    names: list[str] = []
    decode = extract_module.decode

    def recording_decode(ref, *rest):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN002, ANN202
        names.append(ref.name)
        return decode(ref, *rest)

    monkeypatch.setattr(extract_module, "decode", recording_decode)
    return names


def run_extract(photos: Path, out: Path, retry_failed: bool = False, **changes: int) -> Extracted:
    settings = Settings.load(rotation="exif", **changes)  # with auto, orient decodes the photos
    return extract(photos, out / "features.h5", models=out, settings=settings, retry_failed=retry_failed)


def test_a_failed_photo_is_skipped_but_still_counted(photos: Path, tmp_path: Path, decoded: list[str]) -> None:
    first = run_extract(photos, tmp_path)
    assert len(decoded) == 7 and first.new == 4
    cv2.imwrite(str(photos / "e.png"), np.zeros((48, 64, 3), np.uint8))
    decoded.clear()
    again = run_extract(photos, tmp_path)
    assert decoded == ["e.png"]
    assert (again.new, again.images, again.failures) == (1, 8, first.failures)
    summary = Summary(Settings())
    summary.add_extracted(again)
    assert (summary.failed_images, summary.exit_status) == (3, 1)
    assert "Traceback" not in json.dumps(summary.as_dict())
    entries = Ledger(tmp_path).entries()
    assert all("lgbatch.errors.ItemError" in entry.traceback and "decode.py" in entry.traceback for entry in entries)


def test_a_failed_photo_is_retried_on_request_or_after_a_change(
    photos: Path, tmp_path: Path, decoded: list[str]
) -> None:
    run_extract(photos, tmp_path)
    decoded.clear()
    assert len(run_extract(photos, tmp_path, retry_failed=True).failures) == 3
    assert sorted(decoded) == ["bad0.jpg", "bad1.jpg", "bad2.jpg"]
    decoded.clear()
    cv2.imwrite(str(photos / "bad1.jpg"), np.full((48, 64, 3), 99, np.uint8))
    (photos / "bad2.jpg").unlink()
    again = run_extract(photos, tmp_path)
    assert decoded == ["bad1.jpg"]
    assert again.new == 1
    assert list(reasons(tmp_path)) == ["bad0.jpg"]


def test_a_failed_photo_is_retried_after_its_size_limit_changes(
    photos: Path, tmp_path: Path, decoded: list[str]
) -> None:
    cv2.imwrite(str(photos / "large.png"), np.zeros((1001, 1000, 3), np.uint8))
    assert "large.png" in {failure.name for failure in run_extract(photos, tmp_path, max_megapixels=1).failures}
    decoded.clear()
    assert run_extract(photos, tmp_path, max_megapixels=2).new == 1
    assert "large.png" in decoded


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OutOfMemory("disk needs about 67.2 GB"),
        RuntimeError("Non-zero status code: BFCArena: Failed to allocate memory for requested buffer of size 8"),
        cv2.error("(-4:Insufficient memory) Failed to allocate 8 bytes"),
    ],
)
def test_a_photo_that_failed_because_the_memory_was_short_is_retried(
    photos: Path, tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as short_of_memory:
        short_of_memory.setattr(extract_module, "decode", fail)
        assert len(run_extract(photos, tmp_path).failures) == 7
    assert len(reasons(tmp_path)) == 7
    again = run_extract(photos, tmp_path)
    assert (again.new, len(again.failures)) == (4, 3)
    assert len(decoded) == 7
    assert not run_extract(photos, tmp_path).new and len(decoded) == 7  # the others stay failed


def test_all_failures_are_retried_after_the_ledger_is_deleted(photos: Path, tmp_path: Path, decoded: list[str]) -> None:
    run_extract(photos, tmp_path)
    (tmp_path / "errors.jsonl").unlink()
    decoded.clear()
    run_extract(photos, tmp_path)
    assert len(decoded) == 3 and len(reasons(tmp_path)) == 3


def test_too_many_new_failures_stop_the_stage_and_keep_finished_items(
    photos: Path, tmp_path: Path, decoded: list[str]
) -> None:
    for name in ("a", "b"):
        (photos / f"{name}.png").rename(photos / f"0{name}.png")  # sorts before the unreadable ones
    with pytest.raises(LgbatchError, match=r"stopped after 2 new failures \(--max-errors 1\).*`lgbatch errors -w "):
        run_extract(photos, tmp_path, max_errors=1)
    with FeatureStore(tmp_path / "features.h5") as store:
        assert store.names() == ["0a.png", "0b.png"]
    assert len(reasons(tmp_path)) == 2
    assert run_extract(photos, tmp_path, max_errors=1).new == 2  # one new failure


def test_an_unexpected_error_in_one_photo_does_not_end_the_run(
    photos: Path, tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(ref: object, *_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(extract_module, "decode", fail)
    assert {failure.reason for failure in run_extract(photos, tmp_path).failures} == {"MemoryError"}


def run_match(files: Workspace, retry_failed: bool = False, **changes: int) -> Matched:
    settings = Settings.load(**changes)
    return match(
        files.pairs, files.features, files.matches, models=files.root, settings=settings, retry_failed=retry_failed
    )


def test_pairs_of_a_failed_photo_are_skipped_and_counted(photos: Path, tmp_path: Path, decoded: list[str]) -> None:
    files = Workspace(tmp_path)
    run_extract(photos, tmp_path)
    write_pairs(files.pairs, exhaustive(["a.png", "b.png", "bad0.jpg", "unknown.jpg"]))
    with files.pairs.open("a") as file:
        file.write("one two three\n")
    result = run_match(files)
    assert (result.pairs, result.new, result.skipped_pairs) == (6, 1, 3)
    assert [failure.stage for failure in result.failures] == ["pairs", "match", "match"]
    assert {entry.stage for entry in Ledger(tmp_path).entries()} == {"extract", "pairs", "match"}
    write_pairs(files.pairs, exhaustive(["a.png", "b.png", "bad0.jpg"]))
    result = run_match(files)
    assert (result.pairs, result.skipped_pairs, result.failures) == (3, 2, ())
    assert {entry.stage for entry in Ledger(tmp_path).entries()} == {"extract"}
    summary = Summary(Settings())
    summary.add_matched(result)
    assert summary.exit_status == 1 and "skipped: 2 with a failed image" in summary.format()


def test_unreadable_features_are_one_failure_not_one_per_pair(
    photos: Path, tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Workspace(tmp_path)
    run_extract(photos, tmp_path)
    names = ["a.png", "b.png", "c.png", "d.png"]
    write_pairs(files.pairs, exhaustive(names))
    read: list[str] = []
    StandIn.break_features(monkeypatch, "b.png", read)
    result = run_match(files)
    assert [(failure.stage, failure.name) for failure in result.failures] == [("match", "b.png")]
    assert (result.new, result.skipped_pairs, read.count("b.png")) == (3, 3, 1)
    write_pairs(files.pairs, exhaustive(names)[::-1])
    again = run_match(files)
    assert (again.new, again.skipped_pairs, again.failures) == (0, 3, result.failures)
    assert read.count("b.png") == 1
    monkeypatch.undo()
    StandIn.use(monkeypatch)
    assert run_match(files, retry_failed=True).new == 3
    assert "b.png" not in reasons(tmp_path)


def test_too_many_unreadable_images_stop_matching(
    photos: Path, tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Workspace(tmp_path)
    run_extract(photos, tmp_path)
    write_pairs(files.pairs, exhaustive(["a.png", "b.png", "c.png", "d.png"]))
    StandIn.break_features(monkeypatch, "", [])
    with pytest.raises(LgbatchError, match="stopped after 2 new failures"):
        run_match(files, max_errors=1)
    assert Ledger(tmp_path).entries()


def test_lgbatch_errors_lists_the_failures(photos: Path, tmp_path: Path, decoded: list[str]) -> None:
    run_extract(photos, tmp_path)
    Ledger(tmp_path).add(Failure("pairs", ODD_NAME, "why not"))

    def run_errors(*options: str) -> str:
        result = CliRunner().invoke(cli.app, ["errors", "-w", str(tmp_path), *options])
        assert result.exit_code == 0, result.stderr
        return result.stdout

    lines = run_errors().splitlines()
    assert len(lines) == 4
    assert "failed: bad0.jpg (extract): not a photo" in lines[0]
    assert r"day \udcff\n'" in lines[-1]
    assert "Traceback" in run_errors("--traceback") and "Traceback" not in run_errors()
    errors = json.loads(run_errors("--json"))["errors"]
    assert [error["name"] for error in errors][-1] == ODD_NAME
    assert errors[0]["signature"]["file"][0] == len("no photo")
    (tmp_path / "errors.jsonl").unlink()
    assert run_errors() == f"no errors in {tmp_path}\n"
    result = CliRunner().invoke(cli.app, ["errors", "-w", str(tmp_path / "gone")])
    assert result.exit_code == 2 and f"no folder {tmp_path}" in result.stderr


def test_a_photo_that_failed_is_in_no_pair(photos: Path, tmp_path: Path, decoded: list[str]) -> None:
    """Its features of an earlier run are still in the store."""
    run_extract(photos, tmp_path)
    (photos / "b.png").write_text("no photo")
    run_extract(photos, tmp_path, on_change="recompute")
    with FeatureStore(tmp_path / "features.h5") as features:
        assert "b.png" in features
    result = CliRunner().invoke(cli.app, ["pairs", "-w", str(tmp_path), "--json"])
    assert result.exit_code == 0 and json.loads(result.stdout)["pairs"] == 3
    assert "b.png" not in Workspace(tmp_path).pairs.read_text()
