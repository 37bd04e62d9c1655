"""Models in a metric frame: by positions of photos in files and EXIF, and what these do not determine."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lgbatch.errors import InputError, LgbatchError
from lgbatch.reconstruction.georeference.georeference import georeference
from lgbatch.workspace.folder import Workspace
from tests.reconstruction.georeference.helpers import Array, centres, synthetic_model, write_photo, write_positions

ORIGIN = (48.0, 8.0)
METRES_PER_DEGREE = 111_194.9


def test_positions_of_a_file_are_recovered_and_the_model_stays(tmp_path: Path) -> None:
    model = synthetic_model(tmp_path)
    before = (tmp_path / "sparse/0/images.bin").read_bytes()
    known = write_positions(tmp_path / "positions.txt", model, scale=40.0, offset=(500_123.0, 5_312_345.0, 210.0))
    done = georeference(Workspace(tmp_path), positions=tmp_path / "positions.txt", accuracy=0.1)
    found = centres(tmp_path / "georeferenced/0")
    origin = np.array(done.frame.origin)
    assert origin[0] > 499_000 and origin[2] == 0
    assert all(np.allclose(found[name] + origin, known[name], atol=1e-6) for name in known)
    assert (tmp_path / "sparse/0/images.bin").read_bytes() == before
    record = json.loads((tmp_path / "georeferenced/0/georeference.json").read_text())
    assert record["scale"] == pytest.approx(40)
    moved = np.array(record["frame_from_model"]) @ [*model.points3D[1].xyz, 1]
    import pycolmap

    assert np.allclose(pycolmap.Reconstruction(tmp_path / "georeferenced/0").points3D[1].xyz, moved[:3])
    assert record["residuals"]["max"] < 1e-6 and done.exit_status == 0


def test_degrees_become_east_north_up(tmp_path: Path) -> None:
    model = synthetic_model(tmp_path)
    name_of = [image.name for image in model.images.values()]
    local = {name: 30 * np.asarray(model.find_image_with_name(name).projection_center()) for name in name_of}
    write_degrees(tmp_path / "positions.txt", local)
    done = georeference(Workspace(tmp_path), positions=tmp_path / "positions.txt")
    assert done.frame.is_degrees and done.frame.as_dict()["ellipsoid"] == "WGS84"
    assert done.models[0].alignment.scale == pytest.approx(30, rel=2e-3)
    turn = done.models[0].alignment.rotation
    assert np.allclose(turn, np.eye(3), atol=5e-3)  # the model was already east, north, up
    assert done.models[0].alignment.distances.max() < 0.5


def test_exif_of_photos_with_one_outlier_and_photos_without_a_position(tmp_path: Path) -> None:
    model = synthetic_model(tmp_path, frames=8)
    names = sorted(image.name for image in model.images.values())
    local = {name: 30 * np.asarray(model.find_image_with_name(name).projection_center()) for name in names}
    local[names[0]] = local[names[0]] + [400, 0, 0]
    for name in names:
        gps = {} if name == names[1] else degrees_of(local[name])
        if name == names[2]:
            del gps["altitude"]
        if name == names[3]:
            gps |= {"latitude": 0.0, "longitude": 0.0}
        write_photo(tmp_path / "photos" / name, gps)
    done = georeference(Workspace(tmp_path), photos=tmp_path / "photos")
    assert done.without == tuple(names[1:4]) and len(done.models[0].names) == len(names) - 3
    assert done.models[0].as_dict()["outliers"] == [names[0]]
    assert done.models[0].as_dict()["residuals"]["max"] < 0.5
    assert [note.partition(":")[2] for note in done.notes] == [" 1 photo", " 1 photo"]
    text = done.format()
    assert f"outlier {names[0]}: 4" in text and f"without a position: 3 ({names[1]}, " in text


def test_positions_without_altitudes_align_and_say_so(tmp_path: Path) -> None:
    model = synthetic_model(tmp_path)
    known = write_positions(tmp_path / "full.txt", model, scale=30.0)
    lines = [f"{name} {xyz[0]} {xyz[1]}" for name, xyz in known.items()]
    (tmp_path / "positions.txt").write_text("\n".join(lines))
    done = georeference(Workspace(tmp_path), positions=tmp_path / "positions.txt", accuracy=100.0)
    assert "no position has an altitude" in done.format()


def test_zero_degrees_of_a_file_count_as_no_position(tmp_path: Path) -> None:
    model = synthetic_model(tmp_path)
    names = sorted(image.name for image in model.images.values())
    local = {name: 30 * np.asarray(model.find_image_with_name(name).projection_center()) for name in names}
    path = tmp_path / "positions.txt"
    write_degrees(path, local)
    lines = path.read_text().splitlines()
    path.write_text("".join(f"{names[0]} 0 0 0\n" if names[0] in line else f"{line}\n" for line in lines))
    done = georeference(Workspace(tmp_path), positions=path)
    assert done.without == (names[0],) and done.exit_status == 0


def test_degrees_far_from_the_exif_of_the_photos_are_told(tmp_path: Path) -> None:
    model = synthetic_model(tmp_path)
    local = {image.name: 30 * np.asarray(image.projection_center()) for image in model.images.values()}
    for name, xyz in local.items():
        write_photo(tmp_path / "photos" / name, degrees_of(xyz))
    path, known = tmp_path / "positions.txt", {"photos": tmp_path / "photos"}
    write_degrees(path, local)
    assert georeference(Workspace(tmp_path), positions=path, **known).exit_status == 0
    path.write_text(path.read_text().replace(" 8.", " 18.").replace(" 7.", " 17."))
    done = georeference(Workspace(tmp_path), positions=path, **known)
    assert done.exit_status == 1 and "km from the GPS positions of the photos, around latitude 48" in done.format()
    assert f"weak: the positions in {path} are 74" in done.format()
    assert "check its signs and the order of its columns" in done.models[0].as_dict()["weak"]


def test_as_many_photos_with_as_without_an_altitude(tmp_path: Path) -> None:
    model = synthetic_model(tmp_path)
    known = write_positions(tmp_path / "full.txt", model, scale=30.0)
    rows = [[name, *map(str, xyz.tolist())] for name, xyz in known.items()]
    lines = [" ".join(row[: 4 - i % 2]) for i, row in enumerate(rows)]
    (tmp_path / "positions.txt").write_text("\n".join(lines))
    done = georeference(Workspace(tmp_path), positions=tmp_path / "positions.txt")
    assert list(done.notes) == ["left out, since the altitude is missing: 5 photos"] and len(done.without) == 5


def test_a_flight_that_is_mirrored_is_told(tmp_path: Path) -> None:
    """Without the sign of west, or with x and y swapped, positions of one height fit a model that is upside down."""
    import pycolmap

    rng, model = np.random.default_rng(0), pycolmap.Reconstruction()
    model.add_camera_with_trivial_rig(pycolmap.Camera.create_from_model_name(1, "SIMPLE_PINHOLE", 100, 100, 100))
    lines = []
    for i, (east, north) in enumerate(rng.uniform(0, 200, (8, 2)), 1):
        down = pycolmap.Rigid3d(np.column_stack([np.diag([1.0, -1, -1]), [-east / 9, north / 9, 0]]))
        model.add_image_with_trivial_frame(pycolmap.Image(name=f"{i}.jpg", camera_id=1, image_id=i), down)
        lines.append((f"{i}.jpg", 500_000 + east, 5_000_000 + north, 300.0))
    (tmp_path / "sparse/0").mkdir(parents=True)
    model.write(tmp_path / "sparse/0")
    for columns, status in ((0, 1, 2, 3), 0), ((0, 2, 1, 3), 1):
        rows = [" ".join(str(line[column]) for column in columns) for line in lines]
        (tmp_path / "utm.txt").write_text("\n".join(rows))
        done = georeference(Workspace(tmp_path), positions=tmp_path / "utm.txt")
        assert done.exit_status == status
        assert ("the cameras look up, by 90 degrees: do positions lack the sign" in done.format()) == bool(status)


def test_degrees_without_their_title_and_a_folder_without_the_photos_are_told(tmp_path: Path) -> None:
    names = [image.name for image in synthetic_model(tmp_path).images.values()]
    rows = [f"{name} {48 + i * i * 1e-4} {8 + i * 1e-4} {300 + i}" for i, name in enumerate(names)]
    (tmp_path / "positions.txt").write_text("\n".join(rows))
    with pytest.raises(InputError, match="if these are degrees, write 'name latitude longitude altitude' as first"):
        georeference(Workspace(tmp_path), positions=tmp_path / "positions.txt")
    (tmp_path / "photos").mkdir()
    with pytest.raises(InputError, match=r"no photo of the model is in .*photos: give their folder with --images"):
        georeference(Workspace(tmp_path), photos=tmp_path / "photos")


@pytest.mark.parametrize(
    ("positions", "reason"),
    [
        ({0: (0, 0, 0), 1: (9, 0, 0)}, "2 photos with positions of model 0: at least 3"),
        ({i: (5, 5, 5) for i in range(10)}, "all in one place"),
        ({i: (i, 2 * i, 0) for i in range(10)}, "on a line"),
        ({i: (i**3 % 7 * 900, i**2 % 5 * 700, i % 2 * 800) for i in range(10)}, "contradict the model"),
    ],
)
def test_positions_that_determine_nothing_are_refused(tmp_path: Path, positions: dict[int, Any], reason: str) -> None:
    names = sorted(image.name for image in synthetic_model(tmp_path).images.values())
    lines = [f"{names[i]} {x} {y} {z}" for i, (x, y, z) in positions.items()]
    (tmp_path / "positions.txt").write_text("\n".join(lines))
    with pytest.raises(LgbatchError, match=reason):
        georeference(Workspace(tmp_path), positions=tmp_path / "positions.txt", accuracy=1e-3)
    assert not (tmp_path / "georeferenced").exists() and not (tmp_path / "georeferenced.partial").exists()


def test_a_baseline_shorter_than_the_accuracy_is_weak(tmp_path: Path) -> None:
    write_positions(tmp_path / "positions.txt", synthetic_model(tmp_path), scale=1.0)
    done = georeference(Workspace(tmp_path), positions=tmp_path / "positions.txt")
    assert done.exit_status == 1 and "uncertain" in done.format()


def test_a_second_model_that_cannot_be_aligned_is_left_out(tmp_path: Path) -> None:
    write_positions(tmp_path / "positions.txt", synthetic_model(tmp_path, prefix="a"), scale=40.0)
    synthetic_model(tmp_path, number=1, prefix="b")
    done = georeference(Workspace(tmp_path), positions=tmp_path / "positions.txt")
    assert done.exit_status == 1 and "model 1 is left out: 0 photos with positions" in done.format()
    assert (tmp_path / "georeferenced/0/cameras.bin").is_file() and not (tmp_path / "georeferenced/1").exists()


def test_adjustment_to_positions_straightens_a_bent_model(tmp_path: Path) -> None:
    model = synthetic_model(tmp_path, frames=8)
    known = write_positions(tmp_path / "positions.txt", model, scale=40.0)
    rng = np.random.default_rng(0)
    for image in model.images.values():  # cameras drift; the observations stay
        pose = image.cam_from_world()
        pose.translation = pose.translation + rng.normal(0, 0.05, 3)
        model.frame(image.frame_id).rig_from_world = pose
    model.update_point_3d_errors()
    model.write(tmp_path / "sparse/0")
    done = georeference(Workspace(tmp_path), positions=tmp_path / "positions.txt", accuracy=0.5, adjust=True)
    adjusted = done.models[0].adjusted
    assert adjusted and adjusted.error_after < 0.1 < adjusted.error_before
    assert np.abs(adjusted.residuals).max() < 0.05 < done.models[0].alignment.distances.max()
    found = centres(tmp_path / "georeferenced/0")
    assert all(np.allclose(found[name] + done.frame.origin, known[name], atol=0.05) for name in known)


def test_wrong_input_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no models: run `lgbatch run`"):
        georeference(Workspace(tmp_path))
    synthetic_model(tmp_path)
    with pytest.raises(InputError, match=r"there is no folder .*photos: give that of the photos with --images"):
        georeference(Workspace(tmp_path), photos=tmp_path / "photos")
    (tmp_path / "positions.txt").write_text("other.jpg 1 2 3\n")
    with pytest.raises(InputError, match=r"has no position of a photo of the model: its names \(such as other.jpg\)"):
        georeference(Workspace(tmp_path), positions=tmp_path / "positions.txt")
    with pytest.raises(InputError, match="an accuracy of -1 m is impossible"):
        georeference(Workspace(tmp_path), accuracy=-1)


def degrees_of(local: Array) -> dict[str, float]:
    """Latitude, longitude and altitude of a point near ORIGIN."""
    return {
        "latitude": ORIGIN[0] + local[1] / METRES_PER_DEGREE,
        "longitude": ORIGIN[1] + local[0] / METRES_PER_DEGREE / np.cos(np.radians(ORIGIN[0])),
        "altitude": 500 + local[2],
    }


def write_degrees(path: Path, local: dict[str, Array]) -> None:
    rows = [f"{name} {' '.join(map(repr, map(float, degrees_of(xyz).values())))}" for name, xyz in local.items()]
    path.write_text("name latitude longitude altitude\n" + "\n".join(rows))
