"""`lgbatch undistort`: the images and cameras of COLMAP's own undistortion, in a folder that trainers read."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pycolmap
import pytest
from PIL import Image
from typer.testing import CliRunner

from lgbatch.cli import main as cli
from lgbatch.interchange.names import written_names
from lgbatch.interchange.source import find_source
from lgbatch.interchange.undistort import undistort
from tests.interchange import helpers

NAMES = ("a.png", "day 1/b.png", "day 1/c.png")


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def worst_reprojection(model: pycolmap.Reconstruction) -> float:
    """The largest distance in pixels of an observation from its projected point."""
    errors = [
        np.linalg.norm(model.cameras[image.camera_id].img_from_cam(image.cam_from_world() * xyz) - point.xy)
        for image in model.images.values()
        for point in image.points2D
        if point.has_point3D()
        for xyz in [model.points3D[point.point3D_id].xyz]
    ]
    return float(max(errors))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    helpers.scene(tmp_path, NAMES)
    helpers.workspace(tmp_path, NAMES)
    return tmp_path


def test_images_and_cameras_are_those_of_colmap(out: Path, tmp_path: Path) -> None:
    done = undistort(find_source(out), out / "dense")
    assert (done.images, done.new, done.failures) == (3, 3, ())
    pycolmap.undistort_images(tmp_path / "theirs", out / "sparse" / "0", out / "photos")
    expected = pycolmap.Reconstruction(tmp_path / "theirs" / "sparse")
    model = pycolmap.Reconstruction(out / "dense" / "sparse" / "0")
    assert {image.name for image in model.images.values()} == set(NAMES)
    for camera_id, camera in model.cameras.items():
        assert camera.model_name == "PINHOLE"
        np.testing.assert_allclose(camera.params, expected.cameras[camera_id].params, atol=1e-9)
    for image_id, image in model.images.items():
        before = [point.xy for point in expected.images[image_id].points2D]
        np.testing.assert_allclose([point.xy for point in image.points2D], before, atol=1e-9)
    assert worst_reprojection(model) < 1e-6
    assert model.num_points3D() == expected.num_points3D()
    for name in NAMES:
        np.testing.assert_array_equal(
            pixels(out / "dense" / "images" / name), pixels(tmp_path / "theirs" / "images" / name)
        )


def test_the_model_is_also_text_unless_names_have_spaces(out: Path) -> None:
    undistort(find_source(out), out / "dense")
    assert not (out / "dense" / "sparse" / "images.txt").exists()  # readers of the text would cut the names
    undistort(find_source(out), out / "dense", flat=True)
    binary, text = (pycolmap.Reconstruction(out / "dense" / folder) for folder in ("sparse/0", "sparse"))
    assert {image.name for image in text.images.values()} == {"a.png", "day_1_b.png", "day_1_c.png"}
    assert worst_reprojection(text) < 1e-6 and text.num_points3D() == binary.num_points3D()


def test_a_repeated_call_writes_only_what_is_missing_or_has_changed(out: Path) -> None:
    source, dense = find_source(out), out / "dense"
    undistort(source, dense)
    times = {name: (dense / "images" / name).stat().st_mtime_ns for name in NAMES}
    assert undistort(source, dense).new == 0
    (dense / "images" / "a.png").unlink()  # a killed call: an image is missing, another one is half written
    (dense / "images" / "day 1" / ".b.png.new").write_bytes(b"half")
    helpers.photo(out / "photos" / "day 1" / "c.png", seed=9)
    done = undistort(source, dense)
    assert done.new == 2
    assert (dense / "images" / "day 1" / "b.png").stat().st_mtime_ns == times["day 1/b.png"]
    model = pycolmap.Reconstruction(out / "sparse" / "0")
    model.cameras[1].focal_length = 150
    model.write(out / "sparse" / "0")
    assert undistort(source, dense).new == 3
    assert undistort(source, dense, flat=True).new == 2
    files = sorted(file.relative_to(dense).as_posix() for file in (dense / "images").rglob("*") if file.is_file())
    assert files == ["images/a.png", "images/day_1_b.png", "images/day_1_c.png"]


def test_a_killed_command_leaves_no_model_and_the_next_one_completes(tmp_path: Path) -> None:
    names = tuple(f"{i:02}.png" for i in range(40))
    helpers.scene(tmp_path, names)
    dense = tmp_path / "dense"
    command = [sys.executable, "-m", "lgbatch", "undistort", str(tmp_path), "-o", str(dense)]
    command += ["--images", str(tmp_path / "photos")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while not list(dense.glob("images/*.png")):
            assert process.poll() is None
        process.kill()
    assert not (dense / "sparse" / "0").exists()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "40 undistorted images" in done.stdout
    assert pycolmap.Reconstruction(dense / "sparse" / "0").num_reg_images() == 40
    assert sorted(file.name for file in (dense / "images").iterdir()) == list(names)


def test_a_missing_photo_is_told_and_left_out_of_the_model(out: Path) -> None:
    source, dense = find_source(out), out / "dense"
    undistort(source, dense)
    (dense / "images" / "a.png").unlink()
    (out / "photos" / "a.png").rename(out / "a.png")
    left = undistort(source, dense)
    assert [failure.name for failure in left.failures] == ["a.png"]
    assert left.images == 2 and "cannot be read" in left.failures[0].reason
    model = pycolmap.Reconstruction(dense / "sparse" / "0")
    assert {image.name for image in model.images.values()} == set(NAMES[1:])
    (out / "a.png").rename(out / "photos" / "a.png")
    assert undistort(source, dense).images == 3


def test_masks_are_undistorted_with_their_photos(out: Path) -> None:
    mask = np.full(helpers.SIZE[::-1], 255, np.uint8)
    mask[:40] = 0
    (out / "masks").mkdir()
    cv2.imwrite(str(out / "masks" / "a.png.png"), mask)
    undistort(find_source(out), out / "dense", masks=str(out / "masks"))
    for name in NAMES:
        image, written = (
            pixels(out / "dense" / "images" / name),
            pixels(out / "dense" / "masks" / f"{name}.png"),
        )
        assert written.shape == image.shape[:2] and set(np.unique(written)) <= {0, 255}
        assert (written[5:30, 20:-20] == 0).all() == (name == "a.png")
        assert (written[60:] == 255).all()


def test_a_turned_photo_keeps_its_pixels_and_loses_the_tag(out: Path) -> None:
    exif = Image.Exif()
    exif[0x112], exif[0x110] = 6, "Camera"
    helpers.scene(out / "jpeg", ("a.jpg", "b.jpg", "c.jpg"))
    for name in "a.jpg", "b.jpg", "c.jpg":
        with Image.open(out / "jpeg" / "photos" / name) as image:
            image.save(out / "jpeg" / "photos" / name, exif=exif, quality=95)
    source = find_source(out / "jpeg" / "sparse" / "0", images=out / "jpeg" / "photos")
    undistort(source, out / "dense")
    camera = pycolmap.Reconstruction(out / "dense" / "sparse" / "0").cameras[1]
    with Image.open(out / "dense" / "images" / "a.jpg") as image:
        assert image.size == (camera.width, camera.height)
        assert 0x112 not in image.getexif() and image.getexif()[0x110] == "Camera"


def test_a_mirrored_photo_is_mirrored_back(tmp_path: Path) -> None:
    helpers.scene(tmp_path, NAMES)
    helpers.workspace(tmp_path, NAMES, {"a.png": 2})
    undistort(find_source(tmp_path), tmp_path / "dense")
    Image.fromarray(pixels(tmp_path / "photos" / "a.png")[:, ::-1]).save(tmp_path / "photos" / "a.png")
    pycolmap.undistort_images(tmp_path / "theirs", tmp_path / "sparse" / "0", tmp_path / "photos")
    for name in NAMES:
        ours, theirs = (pixels(tmp_path / folder / "images" / name) for folder in ("dense", "theirs"))
        np.testing.assert_array_equal(ours, theirs)


def test_formats_that_few_programs_read_become_jpeg_or_png(tmp_path: Path) -> None:
    helpers.scene(tmp_path, ("a.webp", "b.tif", "b.jpg"))
    helpers.workspace(tmp_path, ("a.webp", "b.tif", "b.jpg"))
    undistort(find_source(tmp_path), tmp_path / "dense")
    model = pycolmap.Reconstruction(tmp_path / "dense" / "sparse" / "0")
    assert {image.name for image in model.images.values()} == {"a.jpg", "b.png", "b.jpg"}
    for image in model.images.values():
        with Image.open(tmp_path / "dense" / "images" / image.name) as written:
            assert written.format == ("PNG" if image.name == "b.png" else "JPEG")


def test_names_are_unique_and_flat_ones_have_no_spaces_folders_or_dots() -> None:
    names = ["a.jpg", "A.JPG", "a.webp", "x/IMG.1 a.jpg", "x_IMG/1.a.jpg", "y/raw.dng"]
    for flat in False, True:
        written = written_names(names, flat=flat)
        assert written.keys() == set(names)
        assert len({name.casefold() for name in written.values()}) == len(names)
    assert all("/" not in name and " " not in name and name.count(".") == 1 for name in written.values())
    assert written_names(names)["x/IMG.1 a.jpg"] == "x/IMG.1 a.jpg"
    assert written_names(names)["y/raw.dng"] == "y/raw.jpg"


def test_the_largest_model_is_chosen_unless_a_number_is_given(out: Path) -> None:
    helpers.scene(out / "other", tuple(f"{i}.png" for i in range(5)))
    (out / "other" / "sparse" / "0").rename(out / "sparse" / "1")
    assert find_source(out).model == out / "sparse" / "1"
    assert find_source(out, 0).model == out / "sparse" / "0"
    assert find_source(out / "sparse" / "0").photos == out / "photos"


def test_rigs_and_points_of_left_out_photos_do_not_reach_the_model(tmp_path: Path) -> None:
    names = tuple(f"{camera}/{frame}.png" for frame in range(2) for camera in "lr")
    helpers.scene(tmp_path, names, cameras_per_rig=2)
    (tmp_path / "photos" / names[0]).write_bytes(b"no photo")
    done = undistort(find_source(tmp_path, images=tmp_path / "photos"), tmp_path / "dense")
    model = pycolmap.Reconstruction(tmp_path / "dense" / "sparse" / "0")
    assert (done.images, len(done.failures), model.num_reg_images(), model.num_rigs()) == (3, 1, 3, 2)
    assert worst_reprojection(model) < 1e-6


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nothing", "-o", "dense"], "no COLMAP model in nothing"),
        (["out", "--model", "7", "-o", "dense"], "there is no model"),
        (["out", "-o", "out/photos"], "has other files"),
        (["out/sparse/0", "--images", "gone", "-o", "dense"], "there is no folder gone"),
    ],
)
def test_errors_are_one_line(
    out: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], line: str, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").symlink_to(".")
    done = CliRunner().invoke(cli.app, ["undistort", *arguments])
    assert done.exit_code == 2
    assert line in done.stderr and done.stderr.count("\n") == 1


def test_a_full_disk_is_one_line_and_keeps_finished_images(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (out / "dense").mkdir()
    (out / "dense" / "undistorted.json").write_text("{}")
    (out / "dense" / "images").write_text("in the place of the folder")
    done = CliRunner().invoke(cli.app, ["undistort", str(out), "-o", str(out / "dense")])
    assert done.exit_code == 2
    assert "cannot undistort" in done.stderr.splitlines()[-1] and "run the command again" in done.stderr


def test_a_damaged_model_is_one_line(out: Path) -> None:
    (out / "sparse" / "0" / "images.bin").write_bytes(b"\3\0\0\0\0\0\0\0cut")
    done = CliRunner().invoke(cli.app, ["undistort", str(out), "-o", str(out / "dense")])
    assert done.exit_code == 2
    assert "the files of the model are damaged" in done.stderr and done.stderr.count("\n") == 1


def test_models_without_images_and_folders_without_the_photos_are_refused(out: Path) -> None:
    (out / "empty").mkdir()
    command = ["undistort", str(out), "-o", str(out / "dense")]
    done = CliRunner().invoke(cli.app, [*command, "--images", str(out / "empty")])
    assert done.exit_code == 2 and "no photo of the model is in" in done.stderr
    pycolmap.Reconstruction().write(out / "sparse" / "0")
    done = CliRunner().invoke(cli.app, command)
    assert done.exit_code == 2 and "the model has no registered images" in done.stderr
    assert not (out / "dense" / "sparse").exists()


def test_the_command_tells_the_space_and_the_result(out: Path) -> None:
    done = CliRunner().invoke(cli.app, ["undistort", str(out), "-o", str(out / "dense"), "--json"])
    assert done.exit_code == 0 and "3 images will take about" in done.stderr
    assert json.loads(done.stdout)["images"] == 3
