"""Unusual photo names: each photo reaches COLMAP's database under its name, or is a failure with its name."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from lgbatch.config import Settings
from lgbatch.matching.match import match
from lgbatch.pipelines import sfm
from lgbatch.storage.features import FeatureStore
from lgbatch.workspace.folder import Workspace
from tests.helpers import slow_cli
from tests.helpers.stand_in import StandIn
from tests.helpers.synthetic import content

VALID = [
    'it\'s "quoted".png',
    "<b onload=x>&amp;.png",
    "\U0001f4f7/\U0001f600 \U00020000.png",
    "\U0001f4f7-\U0001f600 \U00020000.png",
    "nai\u0308ve na\u00efve.png",
    " first.png",
    "last .png",
    "-o.png",
    "#comment.png",
    "%s{}%2e%2e$HOME`id`;.png",
    "back\\slash.png",
    "\u202egnp.png",
    "a\u2028b.png",
    "a\u00a0b.png",
    "x..png",
    "C:.png",
    "matches0.png",
    "*?[a].png",
    "l" * 251 + ".png",
    "\ufeffmark.png",
]
INVALID = {
    b"new\nline.png": r"new\nline.png",
    b"tab\tbed.png": r"tab\tbed.png",
    b"bell\x07\x1b[2J.png": r"bell\x07\x1b[2J.png",
    b"bytes \xff\xfe.png": r"bytes \udcff\udcfe.png",
}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    data = cv2.imencode(".png", np.full((48, 64, 3), 99, np.uint8))[1].tobytes()
    for name in [*(os.fsencode(name) for name in VALID), *INVALID]:
        file = os.path.join(os.fsencode(tmp_path), b"photos", name)  # noqa: PTH118
        os.makedirs(os.path.dirname(file), exist_ok=True)  # noqa: PTH103, PTH120
        with open(file, "wb") as out:  # noqa: PTH123
            out.write(data)
    return tmp_path / "photos"


@pytest.mark.skipif(sys.platform != "linux", reason="needs file names of any bytes")
def test_every_photo_is_imported_or_a_failure(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    StandIn.use(monkeypatch)
    monkeypatch.setattr(sfm, "ensure_models", lambda *_: None)
    out = Workspace(tmp_path / "out")
    summary = sfm.run(photos, out.root, models=tmp_path)
    assert {failure.name for failure in summary.failures} == set(INVALID.values())
    assert (summary.images, summary.matched_pairs) == (len(VALID) + len(INVALID), len(VALID) * (len(VALID) - 1) // 2)
    assert all(line.isprintable() for line in summary.format().split("\n"))
    assert json.loads(out.summary.read_text())["failed_images"] == len(INVALID)
    assert sfm.run(photos, out.root, models=tmp_path).finished_already is True
    assert set(content(out.database)["images"]) == set(VALID)  # type: ignore[call-overload]


@pytest.mark.skipif(sys.platform != "linux", reason="needs file names of any bytes")
def test_names_are_printed_in_any_terminal_encoding(photos: Path, tmp_path: Path) -> None:
    cli = [*slow_cli.COMMAND, "0"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    (photos / "\U0001f4f7" / "bad \U0001f600.jpg").write_text("no photo")
    out = str(tmp_path / "out")
    for command in ["extract", str(photos), "-w", out], ["errors", "-w", out], ["pairs", "-w", out, "--json"]:
        process = subprocess.run([*cli, *command], env=environment, capture_output=True, text=True)
        assert process.returncode in (0, 1), process.stderr
        assert "bug" not in process.stderr
    errors = subprocess.run([*cli, "errors", "-w", out], env=environment, capture_output=True, text=True).stdout
    assert r"failed: \U0001f4f7/bad \U0001f600.jpg (extract): not a photo" in errors


@pytest.mark.skipif(sys.platform != "linux", reason="needs a locale that is not UTF-8")
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_names_are_utf8_in_any_locale(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "photos").mkdir()
    names = ["\xc4pfel.png", "\u5199\u771f.png"]
    for name in names:
        cv2.imwrite(str(tmp_path / "photos" / name), np.full((48, 64, 3), 99, np.uint8))
    no_utf8 = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": encoding}
    command = [*slow_cli.COMMAND, "0", "extract", str(tmp_path / "photos"), "-w", str(tmp_path / "out")]
    process = subprocess.run(command, env=os.environ | no_utf8, capture_output=True)
    assert process.returncode == 0, process.stderr
    with FeatureStore(Workspace(tmp_path / "out").features) as store:
        assert store.names() == names


@pytest.mark.parametrize(
    "name", ["../a.png", "/etc/a.png", "..", ".", "/", "a.png/keypoints", "a.png/", "a.png/../a.png"]
)
def test_pairs_with_paths_as_names_are_failures(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    StandIn.use(monkeypatch)
    monkeypatch.setattr(sfm, "ensure_models", lambda *_: None)
    (tmp_path / "photos").mkdir()
    for letter in "ab":
        cv2.imwrite(str(tmp_path / "photos" / f"{letter}.png"), np.full((48, 64, 3), 99, np.uint8))
    files = Workspace(tmp_path / "out")
    sfm.run(tmp_path / "photos", files.root, models=tmp_path)
    files.pairs.write_text(f"{name}\tb.png\n")
    matched = match(files.pairs, files.features, files.matches, models=tmp_path, settings=Settings())
    (failure,) = matched.failures
    assert failure.name == f"{name} b.png"
    assert failure.reason.startswith(f"no features of {name}")
