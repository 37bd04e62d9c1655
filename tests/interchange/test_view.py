"""`lgbatch view`: a recording is written, and read back by Rerun's own reader."""

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lgbatch
from tests.interchange import helpers

NAMES = ("day 1/a.jpg", "b.jpg", "c.jpg")


def read(recording: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of each entity, as plain values by the last part of the column's name."""
    reader = pytest.importorskip("rerun.chunk").RrdReader
    rows: dict[str, list[dict[str, Any]]] = {}
    for chunk in reader(str(recording)).stream():
        batch = chunk.to_record_batch()
        columns = {name: name.split(":")[-1] for name in batch.schema.names if ":" in name or name == "photo"}
        for row in batch.select(list(columns)).to_pylist():
            rows.setdefault(chunk.entity_path, []).append({columns[name]: value for name, value in row.items()})
    return rows


def entity(rows: dict[str, list[dict[str, Any]]], name: str, below: str = "") -> dict[str, Any]:
    """The values of the entity of a photo, or of one below it. Rerun escapes slashes and spaces in names."""
    escaped = re.sub(r"([/ ])", r"\\\1", name)
    return {key: value for row in rows[f"/model/cameras/{escaped}{below}"] for key, value in row.items()}


def test_points_cameras_photos_and_tracks_are_those_of_the_model(tmp_path: Path) -> None:
    pytest.importorskip("rerun")
    model = helpers.scene(tmp_path, NAMES)
    (tmp_path / "photos" / "c.jpg").write_bytes(b"no photo")
    file = tmp_path / "new" / "model.rrd"
    done = lgbatch.view(tmp_path, file, photos=tmp_path / "photos")
    assert (done.file, done.images, done.points) == (file, 3, len(model.points3D))
    assert [failure.name for failure in done.failures] == ["c.jpg"]

    rows = read(file)
    (points,) = rows["/model/points"]
    expected = np.array([point.xyz for point in model.points3D.values()])
    np.testing.assert_allclose(np.sort(points["positions"], 0), np.sort(expected, 0), rtol=1e-6)
    images = sorted(model.images.values(), key=lambda image: image.name)
    tracks = sorted(rows["/model/tracks"], key=lambda row: row["photo"])
    assert [len(row["positions"]) for row in tracks] == [image.num_points3D for image in images]
    for image in images:
        pose = entity(rows, image.name)
        np.testing.assert_allclose(pose["translation"][0], image.projection_center(), rtol=1e-5)
        photo = entity(rows, image.name, "/photo")
        assert photo["resolution"] == [list(map(float, helpers.SIZE))]
        assert ("blob" in photo) == (image.name != "c.jpg")
        observed = [point.xy for point in image.points2D if point.has_point3D()]
        np.testing.assert_allclose(entity(rows, image.name, "/photo/observations")["positions"], observed, rtol=1e-5)


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("rerun")
    helpers.scene(tmp_path, NAMES)
    with pytest.raises(lgbatch.WorkspaceError, match=r"cannot write .*; choose another file with --output"):
        lgbatch.view(tmp_path, tmp_path / "photos", photos=tmp_path / "photos")


def test_without_rerun_one_line_tells_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helpers.scene(tmp_path, NAMES)
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(lgbatch.InputError, match=r"^`lgbatch view` needs Rerun: pip install 'lgbatch\[view\]'$"):
        lgbatch.view(tmp_path, tmp_path / "model.rrd", photos=tmp_path / "photos")
    assert not (tmp_path / "model.rrd").exists()
