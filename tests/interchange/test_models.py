"""Models in the formats of other programs, read back by their rules: all points project as in COLMAP."""

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pycolmap
import pytest
from typer.testing import CliRunner

from lgbatch.cli import main as cli
from lgbatch.errors import InputError
from lgbatch.interchange.models import export_model
from lgbatch.interchange.source import find_source
from lgbatch.interchange.undistort import undistort
from lgbatch.reconstruction.evaluation.formats.nerfstudio import read_nerfstudio
from tests.interchange import helpers

NAMES = ("a.png", "day 1/b.png", "day 1/c.png")
CAMERAS = {
    "PINHOLE": (170.0, 165.0, 83.0, 58.5),
    "SIMPLE_RADIAL": (170.0, 80.0, 60.0, 0.06),
    "RADIAL": (170.0, 80.0, 60.0, 0.06, -0.01),
    "OPENCV": (170.0, 165.0, 83.0, 58.5, 0.06, -0.01, 0.002, -0.003),
    "OPENCV_FISHEYE": (120.0, 118.0, 83.0, 58.5, 0.03, -0.01, 0.002, -0.001),
}
Array = np.ndarray


def observations(model: pycolmap.Reconstruction) -> dict[str, tuple[Array, Array]]:
    """By image: the points (N, 3) that it observes, and where, (N, 2) pixels."""
    found = {}
    for image in model.images.values():
        points = [point for point in image.points2D if point.has_point3D()]
        xyz = np.array([model.points3D[point.point3D_id].xyz for point in points])
        found[image.name] = xyz, np.array([point.xy for point in points])
    return found


def distorted(x: Array, radial: list[float], p1: float, p2: float) -> Array:
    """OpenCV's distortion of x (N, 2)."""
    r2 = (x**2).sum(1, keepdims=True)
    factor = 1 + sum(k * r2 ** (i + 1) for i, k in enumerate(radial))
    xy = x[:, :1] * x[:, 1:]
    return x * factor + np.hstack([2 * p1 * xy, 2 * p2 * xy]) + [p2, p1] * (r2 + 2 * x**2)


def angles(x: Array) -> Array:
    """The equidistant projection of x (N, 2)."""
    radius = np.linalg.norm(x, axis=1, keepdims=True)
    return x * np.arctan(radius) / radius


@pytest.fixture(params=CAMERAS)
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    helpers.scene(tmp_path, NAMES, model=request.param, params=CAMERAS[request.param])
    helpers.workspace(tmp_path, NAMES)
    return tmp_path


def test_points_project_by_the_conventions_of_nerfstudio(scene: Path) -> None:
    folder = scene / "nerf"
    export_model(find_source(scene), folder, "nerfstudio")
    data = json.loads((folder / "transforms.json").read_text())
    seen = observations(pycolmap.Reconstruction(scene / "sparse" / "0"))
    for frame in data["frames"]:
        path = (folder / frame["file_path"]).resolve()
        assert path.is_file()
        points, pixels = seen[path.relative_to(scene.resolve() / "photos").as_posix()]
        pose, values = np.array(frame["transform_matrix"]), data | frame
        local = (points - pose[:3, 3]) @ pose[:3, :3] * [1, -1, -1]  # OpenGL: y up, looking along -z
        x = local[:, :2] / local[:, 2:]
        fisheye = values["camera_model"] == "OPENCV_FISHEYE"
        radial = [values[f"k{i}"] for i in (1, 2, 3, 4)]
        x = distorted(angles(x) if fisheye else x, radial, values["p1"], values["p2"])
        projected = x * [values["fl_x"], values["fl_y"]] + [values["cx"], values["cy"]]
        assert np.abs(projected - pixels).max() < 1e-6
        assert (values["w"], values["h"]) == helpers.SIZE
    points = pycolmap.Reconstruction()
    points.import_PLY(folder / data["ply_file_path"])
    assert points.num_points3D() == 50


def test_lgbatch_reads_the_transforms_that_it_writes(scene: Path) -> None:
    export_model(find_source(scene), scene / "nerf", "nerfstudio")
    cameras, skipped = read_nerfstudio(scene / "nerf" / "transforms.json")
    model = pycolmap.Reconstruction(scene / "sparse" / "0")
    assert skipped == 0 and len(cameras) == 3
    for image in model.images.values():
        known = cameras[f"../photos/{image.name}"]
        np.testing.assert_allclose(known.camera_from_world, image.cam_from_world().matrix(), atol=1e-9)
        assert known.intrinsics is not None
        same = pycolmap.Camera(
            model=known.intrinsics.model,
            width=helpers.SIZE[0],
            height=helpers.SIZE[1],
            params=list(known.intrinsics.params),
        )
        ray = np.array([[0.1, -0.2, 1.0]])
        expected = model.cameras[image.camera_id].img_from_cam(ray)
        np.testing.assert_allclose(same.img_from_cam(ray), expected, atol=1e-9)


def test_points_project_by_the_manual_of_metashape(scene: Path) -> None:
    export_model(find_source(scene), scene / "agisoft", "metashape")
    chunk = ElementTree.parse(scene / "agisoft" / "cameras.xml").getroot().find("chunk")
    assert chunk is not None
    sensors = {sensor.get("id"): sensor for sensor in chunk.iter("sensor")}
    seen = {Path(name).stem: item for name, item in observations(pycolmap.Reconstruction(scene / "sparse/0")).items()}
    labels = set()
    for camera in chunk.iter("camera"):
        calibration = sensors[camera.get("sensor_id")].find("calibration")
        value = {item.tag: float(item.text) for item in calibration if item.text and item.text.strip()}
        pose = np.array(camera.findtext("transform").split(), float).reshape(4, 4)
        points, pixels = seen[camera.get("label")]
        labels.add(camera.get("label"))
        local = (points - pose[:3, 3]) @ pose[:3, :3]
        x = local[:, :2] / local[:, 2:]
        if calibration.get("type") == "fisheye":
            x = angles(x)
        r2 = (x**2).sum(1)
        factor = 1 + value["k1"] * r2 + value["k2"] * r2**2 + value["k3"] * r2**3 + value["k4"] * r2**4
        xy, (p1, p2) = x[:, 0] * x[:, 1], (value["p1"], value["p2"])
        xs = x[:, 0] * factor + p1 * (r2 + 2 * x[:, 0] ** 2) + 2 * p2 * xy
        ys = x[:, 1] * factor + p2 * (r2 + 2 * x[:, 1] ** 2) + 2 * p1 * xy
        u = helpers.SIZE[0] / 2 + value["cx"] + xs * value["f"] + xs * value["b1"] + ys * value["b2"]
        v = helpers.SIZE[1] / 2 + value["cy"] + ys * value["f"]
        assert np.abs(np.stack([u, v], axis=1) - pixels).max() < 1e-6
    assert labels == {"a", "b", "c"}


@pytest.mark.parametrize("model", ["SIMPLE_RADIAL", "RADIAL"])
def test_points_project_by_the_manual_of_bundler(tmp_path: Path, model: str) -> None:
    helpers.scene(tmp_path, NAMES, model=model, params=CAMERAS[model])
    helpers.workspace(tmp_path, NAMES)
    export_model(find_source(tmp_path), tmp_path / "bundler", "bundler")
    header, *lines = (tmp_path / "bundler" / "bundle.out").read_text().splitlines()
    assert header == "# Bundle file v0.3" and lines[0] == "3 50"
    rows = [np.array(line.split(), float) for line in lines[1:]]
    cameras = [rows[5 * i : 5 * i + 5] for i in range(3)]
    points = [rows[15 + 3 * i : 18 + 3 * i] for i in range(50)]
    checked = 0
    for xyz, color, views in points:
        assert color.shape == (3,)
        for number, _, x, y in views[1:].reshape(int(views[0]), 4):
            (f, k1, k2), *rotation, translation = cameras[int(number)]
            local = np.array(rotation) @ xyz + translation
            p = -local[:2] / local[2]
            r2 = p @ p
            assert np.abs(f * (1 + k1 * r2 + k2 * r2**2) * p - [x, y]).max() < 1e-6
            checked += 1
    assert checked > 100
    listed = (tmp_path / "bundler" / "list.txt").read_text().splitlines()
    paths = [(tmp_path / "bundler" / name).resolve() for name in listed]
    assert paths == [(tmp_path / "photos" / name).resolve() for name in NAMES]


def test_an_undistorted_folder_is_converted_in_place_with_its_masks(tmp_path: Path) -> None:
    helpers.scene(tmp_path, NAMES)
    helpers.workspace(tmp_path, NAMES)
    (tmp_path / "masks").mkdir()
    mask = tmp_path / "masks" / "a.png"
    mask.write_bytes((tmp_path / "photos" / "a.png").read_bytes())
    dense = tmp_path / "dense"
    undistort(find_source(tmp_path), dense, masks=str(tmp_path / "masks"))
    command = ["convert", str(dense), "-o", str(dense), "--to", "nerfstudio", "--json"]
    done = CliRunner().invoke(cli.app, command)
    assert done.exit_code == 0 and json.loads(done.stdout)["images"] == 3
    data = json.loads((dense / "transforms.json").read_text())
    assert [frame["file_path"] for frame in data["frames"]] == [f"images/{name}" for name in NAMES]
    assert [frame["mask_path"] for frame in data["frames"]] == [f"masks/{name}.png" for name in NAMES]


def test_files_of_another_model_are_set_aside(tmp_path: Path) -> None:
    helpers.scene(tmp_path, NAMES)
    helpers.workspace(tmp_path, NAMES)
    moved = pycolmap.Reconstruction(tmp_path / "sparse" / "0")
    moved.transform(pycolmap.Sim3d(2.0, pycolmap.Rotation3d(), np.array([1.0, 0, 0])))
    (tmp_path / "sparse" / "1").mkdir()
    moved.write(tmp_path / "sparse" / "1")
    dense, arguments = tmp_path / "dense", ["undistort", str(tmp_path), "-o", str(tmp_path / "dense"), "--model"]
    assert undistort(find_source(tmp_path, 0), dense).notes == ()
    for kind in "nerfstudio", "metashape":
        export_model(find_source(dense), dense, kind)
    written = {name: (dense / name).read_bytes() for name in ("transforms.json", "cameras.xml")}
    assert undistort(find_source(tmp_path, 0), dense).notes == ()
    assert {name: (dense / name).read_bytes() for name in written} == written
    done = CliRunner().invoke(cli.app, [*arguments, "1"])
    assert done.exit_code == 0 and "dense: 3 undistorted images (0 new)" in done.output
    for name, kind in ("transforms.json", "nerfstudio"), ("cameras.xml", "metashape"):
        assert f"{name}.old now: `lgbatch convert {dense} -o {dense} --to {kind}` writes it anew" in done.output
        assert not (dense / name).exists() and (dense / f"{name}.old").read_bytes() == written[name]
    export_model(find_source(dense), dense, "nerfstudio")
    assert (dense / "transforms.json").read_bytes() != written["transforms.json"]
    assert undistort(find_source(tmp_path, 1), dense).notes == ()


def test_cameras_of_their_own_are_written_with_each_frame(tmp_path: Path) -> None:
    names = ("l/1.png", "r/1.png", "l/2.png", "r/2.png")
    helpers.scene(tmp_path, names, cameras_per_rig=2)
    source = find_source(tmp_path, images=tmp_path / "photos")
    export_model(source, tmp_path, "nerfstudio")
    data = json.loads((tmp_path / "transforms.json").read_text())
    assert "fl_x" not in data and all(frame["fl_x"] == 170 for frame in data["frames"])
    with pytest.raises(InputError, match="2 photos are named 1"):
        export_model(source, tmp_path, "metashape")


@pytest.mark.parametrize(
    ("model", "params", "kind", "line"),
    [
        ("FOV", (170.0, 165.0, 80.0, 60.0, 0.5), "nerfstudio", "nerfstudio has no camera model FOV"),
        ("OPENCV", (*CAMERAS["OPENCV"][:2], 80.0, 60.0, *CAMERAS["OPENCV"][4:]), "bundler", "does not hold the OPENCV"),
        ("SIMPLE_RADIAL", (170.0, 90.0, 60.0, 0.0), "bundler", "10.0 pixels off the centre"),
    ],
)
def test_cameras_that_a_format_cannot_hold_are_refused(
    tmp_path: Path, model: str, params: tuple[float, ...], kind: str, line: str
) -> None:
    helpers.scene(tmp_path, NAMES, model=model, params=params)
    with pytest.raises(InputError, match=line):
        export_model(find_source(tmp_path, images=tmp_path / "photos"), tmp_path / "new", kind)


def test_a_folder_without_the_photos_is_told(tmp_path: Path) -> None:
    helpers.scene(tmp_path, NAMES)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no photo of .* is in .*empty: give their folder with --images"):
        export_model(find_source(tmp_path, images=tmp_path / "empty"), tmp_path / "new", "nerfstudio")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("folder", ["georeferenced", "triangulated"])
def test_other_models_of_a_workspace_have_its_photos(tmp_path: Path, folder: str) -> None:
    helpers.scene(tmp_path, NAMES)
    helpers.workspace(tmp_path, NAMES)
    (tmp_path / "sparse").rename(tmp_path / folder)
    assert find_source(tmp_path / folder / "0").photo_folder() == (tmp_path / "photos").resolve()


def test_mirrored_photos_have_to_be_undistorted_before(tmp_path: Path) -> None:
    helpers.scene(tmp_path, NAMES)
    helpers.workspace(tmp_path, NAMES, {"a.png": 2})
    with pytest.raises(InputError, match=r"a\.png are mirrored"):
        export_model(find_source(tmp_path), tmp_path / "new", "nerfstudio")
    undistort(find_source(tmp_path), tmp_path / "dense")
    assert export_model(find_source(tmp_path / "dense"), tmp_path / "dense", "nerfstudio").images == 3
