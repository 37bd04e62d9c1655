"""Known intrinsics: --camera-params, and --calibration with a camera for each folder."""

import math
from pathlib import Path

import pytest

from lgbatch.colmap.database import DatabaseCounts
from lgbatch.colmap.sensors.calibration import _OLDEST_MODELS, check_camera_model, read_calibration
from lgbatch.config import Settings
from lgbatch.errors import DatabaseError, InputError
from tests.helpers.synthetic import NAMES, SIZE, Source, content, exif_photo, photo, scene
from tests.helpers.synthetic import import_source as run

PARAMS = "50,32,24,0.1"


def cameras(path: Path) -> dict[str, tuple[str, list[float], bool]]:
    """Model, parameters and whether the focal length is a prior, by image name."""
    import pycolmap

    with pycolmap.Database.open(path) as db:
        by_name = {image.name: db.read_camera(image.camera_id) for image in db.read_all_images()}
    return {n: (c.model_name, c.params.tolist(), c.has_prior_focal_length) for n, c in by_name.items()}


def test_models_that_need_no_import_of_pycolmap_are_colmaps() -> None:
    import pycolmap

    assert set(pycolmap.CameraModelId.__members__) > _OLDEST_MODELS
    check_camera_model("EQUIRECTANGULAR")  # a newer one


def calibrate(folder: Path, text: str, folders: str | None = None) -> Settings:
    """Write cameras.txt and folders.txt."""
    (folder / "cameras.txt").write_text("# Camera list\n" + text)
    if folders is not None:
        (folder / "folders.txt").write_text(folders)
    return Settings(calibration=str(folder / "cameras.txt"))


@pytest.mark.parametrize(("mode", "count"), [("image", 3), ("auto", 1), ("single", 1)])
def test_camera_params_are_those_of_all_cameras(database: Path, source: Source, mode: str, count: int) -> None:
    for name in NAMES:
        exif_photo(database.parent / "images", name, SIZE, focal=50)
    calibration = read_calibration(Settings(camera_params=PARAMS))
    assert run(database, source, mode, calibration=calibration).cameras == count
    assert list(cameras(database).values()) == [("SIMPLE_RADIAL", [50, 32, 24, 0.1], True)] * 3
    before = database.read_bytes()
    assert run(database, source, mode, calibration=calibration, view=True) == DatabaseCounts()
    assert database.read_bytes() == before


@pytest.mark.parametrize("mode", ["image", "folder", "auto"])
def test_a_view_follows_the_intrinsics(database: Path, source: Source, mode: str) -> None:
    known = read_calibration(Settings(camera_params=PARAMS))
    run(database, source, mode)
    default = cameras(database)
    with pytest.raises(DatabaseError, match=r"camera of image a\.jpg has other parameters .*now 50, 32, 24, 0\.1"):
        run(database, source, mode, calibration=known)
    assert cameras(database) == default
    assert run(database, source, mode, calibration=known, view=True).rebuilt
    assert cameras(database)["b.jpg"] == ("SIMPLE_RADIAL", [50, 32, 24, 0.1], True)
    assert run(database, source, mode, view=True).rebuilt
    assert cameras(database) == default
    assert run(database, source, mode, view=True) == DatabaseCounts()


def test_each_folder_has_its_camera_scaled_to_its_photos(tmp_path: Path, database: Path) -> None:
    source = scene(tmp_path / "images", ("left eye/1.jpg", "left eye/2.jpg", "right/1.jpg", "right/sub/2.jpg", "x.jpg"))
    photo(tmp_path / "images", "right/1.jpg", (32, 24))
    source.sizes["right/1.jpg"] = (32, 24)
    left, right, rest = (
        "7 PINHOLE 64 48 50 51 32 24\n",
        "3 OPENCV 128 96 90 91 64 48 0.1 0 0 0\n",
        "9 FOV 64 48 1 1 1 1 .5\n",
    )
    settings = calibrate(tmp_path, left + right + rest, "# FOLDER CAMERA_ID\nleft eye/ 7\nright 3\n. 9\n")
    run(database, source, "auto", calibration=read_calibration(settings))
    assert cameras(database) == {
        "left eye/1.jpg": ("PINHOLE", [50, 51, 32, 24], True),
        "left eye/2.jpg": ("PINHOLE", [50, 51, 32, 24], True),
        "right/1.jpg": ("OPENCV", [22.5, 22.75, 16, 12, 0.1, 0, 0, 0], True),
        "right/sub/2.jpg": ("OPENCV", [45, 45.5, 32, 24, 0.1, 0, 0, 0], True),
        "x.jpg": ("FOV", [1, 1, 1, 1, 0.5], True),
    }
    assert len(content(database)["cameras"]) == 4
    assert run(database, source, "auto", calibration=read_calibration(settings), view=True) == DatabaseCounts()


def test_a_single_camera_is_that_of_all_folders(tmp_path: Path, database: Path) -> None:
    source = scene(tmp_path / "images", ("a/1.jpg", "b/1.jpg"))
    run(database, source, "auto", calibration=read_calibration(calibrate(tmp_path, "4 PINHOLE 64 48 50 51 32 24")))
    assert len(content(database)["cameras"]) == 1


@pytest.mark.parametrize(
    ("text", "folders", "reason"),
    [
        ("", None, "has no camera"),
        ("1 PINHOLE 64 48 50 51 32", None, r"line 2: PINHOLE has 4 parameters \(fx, fy, cx, cy\), not 50 51 32"),
        ("1 PINHOLE 64 48 50 51 32 nan", None, "PINHOLE has 4 parameters"),
        ("1 NONE 64 48 50", None, "unknown camera model 'NONE'"),
        ("1 PINHOLE 64", None, "line 2: expected CAMERA_ID MODEL WIDTH HEIGHT PARAMS"),
        ("1 SIMPLE_PINHOLE 64 48 50 32 24\n2 SIMPLE_PINHOLE 64 48 50 32 24", None, "2 cameras: list FOLDER CAMERA_ID"),
        ("1 SIMPLE_PINHOLE 64 48 50 32 24", "left 2", "folders.txt, line 1: expected FOLDER CAMERA_ID with a camera"),
    ],
)
def test_a_wrong_calibration_is_refused(tmp_path: Path, text: str, folders: str | None, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        read_calibration(calibrate(tmp_path, text, folders))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"camera_params": "50,32,24"}, r"--camera-params: SIMPLE_RADIAL has 4 parameters \(f, cx, cy, k\)"),
        ({"camera_params": "50,32,24,x"}, "SIMPLE_RADIAL has 4 parameters"),
        ({"camera_params": PARAMS, "calibration": "x"}, "use one of them"),
        ({"calibration": "missing.txt"}, r"cannot read missing\.txt"),
        ({"calibration": "x", "camera_mode": "single"}, "leave out --camera-mode"),
        ({"camera_model": "NONE"}, "unknown camera model 'NONE'"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, str], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        read_calibration(Settings(**settings))


def test_photos_that_the_calibration_does_not_fit_are_refused(tmp_path: Path, database: Path) -> None:
    source = scene(tmp_path / "images", ("a/1.jpg", "b/1.jpg"))
    settings = calibrate(tmp_path, "1 SIMPLE_PINHOLE 64 48 50 32 24", "a 1")
    with pytest.raises(InputError, match=r"no camera for image b/1\.jpg: list its folder in folders\.txt"):
        run(database, source, "auto", calibration=read_calibration(settings))
    settings = calibrate(tmp_path, "1 SIMPLE_PINHOLE 64 64 50 32 32", ". 1")
    with pytest.raises(InputError, match=r"a/1\.jpg is 64x48, but its camera in the calibration is 64x64"):
        run(database, source, "auto", calibration=read_calibration(settings))
    assert not database.exists()


@pytest.mark.parametrize("model", ["OPENCV_FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RAD_TAN_THIN_PRISM_FISHEYE", "FISHEYE"])
def test_fisheye_lenses_without_exif_view_150_degrees(database: Path, source: Source, model: str) -> None:
    exif_photo(database.parent / "images", "b.jpg", SIZE, focal=24)
    run(database, source, "image", model)
    found = cameras(database)
    assert found["a.jpg"][1][0] == pytest.approx(math.hypot(*SIZE) / math.radians(150))
    assert found["b.jpg"][1][0] == pytest.approx(24 / 43.27 * math.hypot(*SIZE), rel=1e-3)
    assert found["a.jpg"][2] and found["b.jpg"][2]
