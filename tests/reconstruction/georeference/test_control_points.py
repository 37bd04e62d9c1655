"""Ground control points of gcp_list.txt: triangulated, and the model aligned to them."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from lgbatch.errors import InputError
from lgbatch.reconstruction.evaluation.formats.colmap_model import read_model
from lgbatch.reconstruction.georeference.control_points import read_control_points
from lgbatch.reconstruction.georeference.crs import to_degrees
from lgbatch.reconstruction.georeference.georeference import georeference
from lgbatch.workspace.folder import Workspace
from tests.reconstruction.georeference.helpers import synthetic_model, write_photo

UTM = (500_000.0, 5_316_000.0, 300.0)
UTM_32 = "EPSG:32632", "WGS84 UTM 32N", "WGS 84 / UTM zone 32N", "+proj=utm +zone=32 +datum=WGS84 +units=m +no_defs"


def write_points(workspace: Path, header: str, *, wrong_pixel: bool = False, wrong_point: bool = False) -> None:
    """Write 6 points of the synthetic model, 50 metres a unit, near UTM."""
    model, lines = synthetic_model(workspace), [header]
    for number in sorted(model.points3D)[:6]:
        point = model.points3D[number]
        x, y, z = 50 * point.xyz + np.array(UTM) + (100 if wrong_point and number == 1 else 0)
        for row, element in enumerate(point.track.elements[:4]):
            image = model.images[element.image_id]
            px, py = image.points2D[element.point2D_idx].xy - 0.5 + (200 if wrong_pixel and row == 3 else 0)
            lines.append(f"{x:.4f} {y:.4f} {z:.4f} {px:.3f} {py:.3f} {image.name} gcp {number}")
    (workspace / "gcp_list.txt").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("header", UTM_32)
def test_the_model_is_aligned_to_the_points(tmp_path: Path, header: str) -> None:
    write_points(tmp_path, header)
    done = georeference(Workspace(tmp_path), control_points=tmp_path / "gcp_list.txt")
    model = done.models[0]
    assert model.names == [f"gcp {i}" for i in range(1, 7)] and max(model.pixel_errors) < 0.01
    assert model.alignment.scale == pytest.approx(50, rel=1e-3)  # UTM's scale factor is 0.9996 here
    assert model.alignment.distances.max() < 0.05 and done.exit_status == 0
    assert "6 control points of gcp_list.txt" in done.format()


@pytest.mark.parametrize(("header", "kilometres"), [("EPSG:32632", 0), ("EPSG:32633", 446), ("EPSG:32732", 10_000)])
def test_a_wrong_zone_or_hemisphere_is_told_if_the_photos_have_positions(
    tmp_path: Path, header: str, kilometres: int
) -> None:
    write_points(tmp_path, header)
    points, photos = tmp_path / "gcp_list.txt", tmp_path / "photos"
    without = georeference(Workspace(tmp_path), control_points=points, photos=photos)
    assert without.exit_status == 0 and "weak" not in without.format()  # nothing can be known
    names = sorted(image.name for image in read_model(tmp_path / "sparse/0").images.values())
    for name in names[1:]:
        write_photo(photos / name, {"latitude": 48.0, "longitude": 9.0})
    write_photo(photos / names[0], {"latitude": 0.0, "longitude": 0.0})
    done = georeference(Workspace(tmp_path), control_points=points, photos=photos)
    assert done.exit_status == int(kilometres > 0)
    (*found,) = map(float, re.findall(r"weak: the control points are (\d+) km from the GPS positions", done.format()))
    assert found == (pytest.approx([kilometres], rel=0.07) if kilometres else [])
    if kilometres:
        advice = r"longitude 9.0000 \(UTM zone 32N, EPSG:32632\): check the reference system in the first line of .*gcp"
        assert re.search(advice, done.format())


def test_a_wrong_pixel_is_left_out_and_a_wrong_point_is_told(tmp_path: Path) -> None:
    write_points(tmp_path, UTM_32[0], wrong_pixel=True, wrong_point=True)
    model = georeference(Workspace(tmp_path), control_points=tmp_path / "gcp_list.txt").models[0]
    assert model.as_dict()["outliers"] == ["gcp 1"] and model.as_dict()["residuals"]["max"] < 0.05
    assert max(model.pixel_errors) < 0.1


def test_utm_and_degrees_need_no_other_package_and_agree_with_pyproj() -> None:
    points = np.array([[500_123.4, 5_312_345.6, 7.0], [300_000.0, 1_000_000.0, -3.0]])
    pyproj = pytest.importorskip("pyproj")
    for header, code in (*((header, 32632) for header in UTM_32), ("epsg:32755", 32755)):
        longitude, latitude = pyproj.Transformer.from_crs(code, 4326, always_xy=True).transform(*points[:, :2].T)
        assert np.allclose(to_degrees(header)(points), np.column_stack([latitude, longitude, points[:, 2]]), atol=1e-8)
    for header in "EPSG:4326", "WGS84", "+proj=longlat +datum=WGS84 +no_defs":
        assert to_degrees(header)(np.array([[8.0, 48.0, 7.0]])).tolist() == [[48.0, 8.0, 7.0]]
    swiss = to_degrees("EPSG:2056")(np.array([[2_600_000.0, 1_200_000.0, 500.0]]))
    assert np.allclose(swiss[0, :2], [46.95108, 7.43864], atol=1e-4)
    with pytest.raises(InputError, match="'nonsense' is no coordinate reference system"):
        to_degrees("nonsense")


def test_other_systems_without_pyproj_tell_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyproj", None)
    with pytest.raises(InputError, match=r"need pyproj: pip install 'lgbatch\[geo\]'"):
        to_degrees("EPSG:2056")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "has no control points"),
        ("EPSG:32632\n1 2 3 4 a.jpg\n", "line 2: expected x y z column row image"),
        ("EPSG:32632\n1 2 nan 4 5 a.jpg\n", "line 2"),
        ("EPSG:4326\n48 1000 3 4 5 a.jpg\n", "outside of 'EPSG:4326'"),
        ("EPSG:32632\n5312345 500123 3 4 5 a.jpg\n", "outside of 'EPSG:32632'"),
        ("500123 5312345 3 4 5 a.jpg\n", "lacks the reference system: write it as first line"),
        ("EPSG:32632\n1,2,3,4,5,a.jpg\n", "separated by spaces or tabs"),
    ],
)
def test_a_bad_file_is_reported(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "gcp_list.txt").write_text(content)
    with pytest.raises(InputError, match=reason):
        read_control_points(tmp_path / "gcp_list.txt")


def test_points_that_no_image_shows_are_refused(tmp_path: Path) -> None:
    synthetic_model(tmp_path)
    (tmp_path / "gcp_list.txt").write_text("EPSG:32632\n1 2 3 4 5 other.jpg\n")
    with pytest.raises(InputError, match=r"no image of .*gcp_list.txt \(such as other.jpg\) is in a model"):
        georeference(Workspace(tmp_path), control_points=tmp_path / "gcp_list.txt")


def test_points_in_one_image_are_named_and_comments_are_skipped(tmp_path: Path) -> None:
    write_points(tmp_path, UTM_32[0])
    path = tmp_path / "gcp_list.txt"
    first = path.read_text().split("\n")[1].split()
    lonely = " ".join([str(float(first[0]) + 7), *first[1:6], "lonely"])
    path.write_text(f"# points of May\n\n{path.read_text()}  # one more\n{lonely}\n", newline="\r\n")
    done = georeference(Workspace(tmp_path), control_points=path)
    assert done.without == ("lonely",) and len(done.models[0].names) == 6
    assert "not shown by two images that agree: 1 (lonely)" in done.format()


def test_utm_in_feet_is_not_taken_for_metres(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyproj", None)
    with pytest.raises(InputError, match="need pyproj"):
        to_degrees("+proj=utm +zone=32 +datum=WGS84 +units=us-ft")
