"""Reports of made workspaces: what they tell, of runs in each state."""

import base64
import json
import re
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from lgbatch.errors import InputError
from lgbatch.reconstruction.reconstruct import reconstruct
from lgbatch.report.make import report_at_end, write_report
from lgbatch.workspace.folder import Workspace
from tests.helpers.synthetic import exif_photo, import_source, photo, synthetic
from tests.report.helpers import HOSTILE, facts, fail, finished, write_stores

pytest.importorskip("pycolmap")


def block(page: Path, name: str) -> str:
    """The text of a data block of a page."""
    found = re.search(f'<script type="[^"]*" id="{name}">([^<]*)</script>', page.read_text(encoding="utf-8"))
    assert found
    return found[1]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A finished workspace of six registered photos, one that matches none, and one that failed."""
    files = finished(tmp_path_factory.mktemp("run"), alone=("alone.jpg",))
    fail(files, "broken.jpg", "the photo is truncated")
    write_report(files.root)
    return files


def test_each_photo_tells_whether_it_is_registered_or_why_not_and_what_to_do(run: Workspace) -> None:
    values = facts(run.report)
    photos = {row["name"]: row for row in values["photos"]}
    assert (values["state"], values["registered"], len(photos)) == ("mapped", 6, 8)
    assert [row["name"] for row in values["photos"]] == sorted(photos)
    registered = photos["1.jpg"]
    assert (registered["model"], registered["cause"], registered["width"]) == (0, None, 512)
    assert 0 < registered["error"] < 2 and registered["observations"] > 50 and registered["verified"] == 5
    alone, broken = photos["alone.jpg"], photos["broken.jpg"]
    assert (alone["model"], alone["cause"], alone["keypoints"]) == (None, "no matches", 200)
    assert "200 keypoints" in alone["reason"] and f"`lgbatch reconstruct -w {run.root}" not in alone["advice"]
    assert (broken["cause"], broken["keypoints"]) == ("failed", None) and "truncated" in broken["reason"]
    assert "replace the photo, and run `lgbatch " in broken["advice"] and str(run.root) in broken["advice"]
    assert {group["cause"] for group in values["missing"]} == {"failed", "no matches"}


def test_the_facts_hold_pairs_models_figures_and_errors(run: Workspace) -> None:
    values = facts(run.report)
    pairs = values["pairs"]
    assert (pairs["tried"], pairs["matched"], pairs["verified"]) == (15, 15, 15)
    assert len(pairs["a"]) == len(pairs["b"]) == len(pairs["matches"]) == len(pairs["inliers"]) == 15
    assert all(a < b for a, b in zip(pairs["a"], pairs["b"], strict=True))
    (model,) = values["models"]
    assert model["registered_images"] == 6 and model["points3D"] > 100
    errors, tracks = values["histograms"]
    assert errors["count"] == model["observations"] == sum(count for *_, count in errors["bins"])
    assert tracks["count"] == model["points3D"] == sum(count for *_, count in tracks["bins"])
    assert values["graph"]["components"] == 1 and values["graph"]["bridges"] == [] and values["graph"]["alone"] == 2
    assert [entry["name"] for entry in values["errors"]] == ["broken.jpg"]
    assert {entry["file"] for entry in values["provenance"]} == {"features.h5", "matches.h5"}
    assert values["notes"] == []


def test_the_arrays_of_the_page_are_those_of_the_facts(run: Workspace) -> None:
    data = json.loads(block(run.report, "data"))
    packed = zlib.decompress(base64.b64decode(block(run.report, "arrays")), -15)

    def array(name: str) -> np.ndarray:
        part = data["arrays"][name]
        return np.frombuffer(packed, part["type"], part["length"], part["offset"])

    pairs = facts(run.report)["pairs"]
    assert np.cumsum(array("pair_a")).tolist() == pairs["a"]
    assert np.cumsum(array("pair_b"), dtype=np.uint32).tolist() == pairs["b"]
    assert array("matches").tolist() == pairs["matches"] and array("inliers").tolist() == pairs["inliers"]
    counts = array("drawn_counts").reshape(-1, 2)
    assert array("drawn").tolist() == list(range(15)) and (counts[:, 0] > 0).all()
    positions = array("positions").reshape(4, -1)
    assert positions.shape[1] == counts.sum() and positions.max() <= data["steps"]
    view = data["views"][0]
    assert len(array("xyz0")) == len(array("colors0")) == 3 * view["shown"] and len(view["cameras"]) == 6
    thumbnails = json.loads(block(run.report, "thumbnails"))
    names = [row["name"] for row in data["photos"]]
    assert [bool(picture) for picture in thumbnails] == [name != "broken.jpg" for name in names]
    assert all(base64.b64decode(picture)[8:12] == b"WEBP" for picture in thumbnails if picture)


def test_the_page_asks_no_other_place(run: Workspace) -> None:
    text = run.report.read_text(encoding="utf-8")
    policy = re.search('http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy and policy[1].startswith("default-src &#39;none&#39;; script-src &#39;sha256-")
    assert "unsafe" not in policy[1] and "http" not in policy[1]
    outside = re.sub(r"<(script|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    assert not re.search(r'(src|href)="(?!#|data:)', outside) and "style=" not in outside


def test_a_run_without_photos_has_no_thumbnails_and_says_so(tmp_path: Path) -> None:
    files = finished(tmp_path)
    shutil.move(tmp_path / "images", tmp_path / "moved")
    done = write_report(tmp_path)
    assert done.headline == "6 of 6 photos registered in 1 model"
    assert [note.partition(":")[0] for note in done.notes] == ["no thumbnails"] and "--images" in done.notes[0]
    assert not any(json.loads(block(files.report, "thumbnails")))
    assert not write_report(tmp_path, photos=tmp_path / "moved").notes
    assert all(json.loads(block(files.report, "thumbnails")))


def test_states_of_an_unfinished_run(tmp_path: Path) -> None:
    source, files = synthetic(tmp_path, 4), Workspace(tmp_path)
    with pytest.raises(InputError, match="no file of a run"):
        write_report(tmp_path)
    fail(files, "broken.jpg", "damaged")
    assert write_report(tmp_path).headline == "Unfinished: 0 of 1 photo extracted, no model yet"
    files.orientations.write_text(json.dumps({"images": {name: {"orientation": 1} for name in source.names()}}))
    assert write_report(tmp_path).headline == "Unfinished: 0 of 5 photos extracted, no model yet"
    write_stores(files, source, tmp_path / "images")
    files.matches.rename(tmp_path / "kept")
    assert write_report(tmp_path).headline == "Unfinished: 4 of 5 photos extracted, no model yet"
    values = facts(files.report)
    assert values["pairs"]["tried"] == 6 and values["pairs"]["matched"] == 0
    assert values["command"] == f"lgbatch run {tmp_path / 'images'} -o {tmp_path} --pairs {files.pairs}"
    (tmp_path / "kept").rename(files.matches)
    write_report(tmp_path)
    assert facts(files.report)["pairs"]["matched"] == 6 and facts(files.report)["pairs"]["verified"] == 0
    assert "The run has not finished" in files.report.read_text(encoding="utf-8")


def test_a_run_without_a_model_tells_why(tmp_path: Path) -> None:
    source, files = synthetic(tmp_path, 3), Workspace(tmp_path)
    source.matches.clear()
    write_stores(files, source, tmp_path / "images")
    import_source(files.database, source)
    reconstruct(files.database, tmp_path / "images", files.sparse)
    assert write_report(tmp_path).headline == "0 of 3 photos registered: there is no model"
    values = facts(files.report)
    assert values["state"] == "no model" and values["advice"].startswith("no two images match")
    assert [row["cause"] for row in values["photos"]] == ["no matches"] * 3
    assert "Why there is no model" in files.report.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name", ["summary.json", "finished.json", "features.h5", "matches.h5", "database.db", "sparse"]
)
def test_a_damaged_or_missing_file_leaves_a_report_of_the_others(run: Workspace, tmp_path: Path, name: str) -> None:
    for state in "missing", "damaged":
        folder = tmp_path / state
        shutil.copytree(run.root, folder)
        damaged = folder / name if name != "sparse" else folder / "sparse" / "0" / "images.bin"
        if state == "missing":
            damaged.unlink(missing_ok=True)
        else:
            damaged.write_bytes(b"{ damaged")
        done = write_report(folder, photos=run.root / "images")
        assert done.page.is_file() and "of 8 photos" in done.headline
        assert state == "missing" or name == "finished.json" or done.notes
        assert all("\n" not in note for note in done.notes)


def test_hostile_names_are_text(tmp_path: Path) -> None:
    files = finished(tmp_path, alone=HOSTILE)
    fail(files, "bytes \udcff.jpg", "<script>document.title='harmed'</script>")
    write_report(tmp_path)
    text = files.report.read_bytes().decode("utf-8")
    assert "<script>document" not in text and "<img src=x" not in text and "49.jpg" not in text
    assert "\u2028" not in text and "\u202e" not in text
    names = [row["name"] for row in facts(files.report)["photos"]]
    assert set(HOSTILE) | {"bytes \udcff.jpg"} <= set(names)


def test_gps_positions_are_compared_with_the_cameras(tmp_path: Path) -> None:
    source, files = synthetic(tmp_path, 6), Workspace(tmp_path)
    for i, name in enumerate(source.names()):
        exif_photo(tmp_path / "images", name, (512, 384), gps=(48 + 1e-4 * (i % 3), 11 + 1e-4 * (i // 3), 500.0 + i))
    write_stores(files, source, tmp_path / "images")
    import_source(files.database, source)
    reconstruct(files.database, tmp_path / "images", files.sparse)
    write_report(tmp_path)
    gps = facts(files.report)["gps"]
    assert gps["photos"] == 6 and gps["horizontal"]["largest"] >= gps["horizontal"]["median"] > 0
    assert len(gps["plan"]) == 6 and "vertical" in gps
    assert all(row["gps_residual"] is not None for row in facts(files.report)["photos"])


def test_without_pycolmap_the_models_are_left_out(run: Workspace, tmp_path: Path) -> None:
    code = "import sys; sys.modules['pycolmap'] = None; from lgbatch.__main__ import main; main()"
    command = [sys.executable, "-c", code, "report", str(run.root), "-o", str(tmp_path / "page.html")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "pycolmap is not installed" in done.stderr and "Traceback" not in done.stderr
    assert "Unknown how many of 8 photos are registered: the models cannot be read" in done.stdout
    values = facts(tmp_path / "page.html")
    assert values["pairs"]["verified"] == 15
    assert values["state"] == "unread" and values["advice"] is None
    assert not any("3D points" in (row["reason"] or "") for row in values["photos"])


def test_a_report_that_fails_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report.html").mkdir()
    fail(Workspace(tmp_path), "a.jpg", "damaged")
    report_at_end(tmp_path, tmp_path, changed=True, failed=False)
    assert capsys.readouterr().err.count("\n") == 1
    report_at_end(tmp_path / "absent", tmp_path, changed=True, failed=False)
    assert "lgbatch: no report: there is no folder" in capsys.readouterr().err


def test_the_command_writes_where_it_is_told(run: Workspace, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lgbatch", "report", str(run.root), "-o", str(tmp_path / "page.html"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    values = json.loads(done.stdout)
    assert values["headline"] == "6 of 8 photos registered in 1 model" and values["bytes"] < 1_000_000
    assert (tmp_path / "page.html").is_file() and (tmp_path / "page.json").is_file()
    photo(tmp_path, "a.jpg", (8, 8))
    again = subprocess.run([*command[:4], str(tmp_path)], capture_output=True, text=True)
    assert again.returncode == 2 and again.stderr.count("\n") == 1
