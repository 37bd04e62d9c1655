"""The report at the end of `lgbatch run`."""

import os
from pathlib import Path

import pytest

from lgbatch.errors import LgbatchError
from lgbatch.pipelines import sfm
from lgbatch.report import make
from lgbatch.workspace.folder import Workspace
from tests.helpers.stand_in import StandIn
from tests.helpers.synthetic import photo
from tests.report.helpers import facts

pytest.importorskip("pycolmap")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of four blank photos, for runs with stand-ins of the networks."""
    StandIn.use(monkeypatch)
    monkeypatch.setattr(sfm, "ensure_models", lambda *_: None)
    for name in "abcd":
        photo(tmp_path / "photos", f"{name}.png", (64, 48))
    return tmp_path / "photos"


def test_a_run_writes_the_report_once(photos: Path, tmp_path: Path) -> None:
    out = Workspace(tmp_path / "out")
    run = {"models": tmp_path, "rotation": "none", "second_try": 0.0}
    sfm.run(photos, out.root, report=False, **run)
    assert not out.report.exists()
    assert sfm.run(photos, out.root, **run).finished_already
    values = facts(out.report)
    assert values["command"].startswith(f"lgbatch run {photos} -o {out.root}") and len(values["photos"]) == 4
    memory = {row["stage"]: row["memory_mb"] for row in values["stages"]}
    assert memory["extract"] is None or memory["extract"] > 10
    before = out.report.stat().st_mtime_ns
    sfm.run(photos, out.root, **run)
    assert out.report.stat().st_mtime_ns == before
    os.utime(out.report, ns=(1, 1))  # as of a run that was killed before its report
    sfm.run(photos, out.root, **run)
    assert out.report.stat().st_mtime_ns > before


def test_a_run_that_fails_leaves_a_report(photos: Path, tmp_path: Path) -> None:
    for file in photos.iterdir():
        file.write_bytes(file.read_bytes()[:60])
    out = Workspace(tmp_path / "out")
    with pytest.raises(LgbatchError, match="no photo can be extracted"):
        sfm.run(photos, out.root, models=tmp_path, rotation="none")
    assert [row["cause"] for row in facts(out.report)["photos"]] == ["failed"] * 4


def test_a_report_that_fails_does_not_fail_the_run(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("not\nthis")

    monkeypatch.setattr(make, "gather", fail)
    summary = sfm.run(photos, tmp_path / "out", models=tmp_path, rotation="none", second_try=0.0)
    assert summary.images == 4
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "report" in line]
    assert line.startswith("lgbatch: no report: not; ")
