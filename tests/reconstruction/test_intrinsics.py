"""Intrinsics in mapping: fisheye lenses, and cameras that are kept."""

import math
from pathlib import Path

import pycolmap
import pytest

from lgbatch.colmap.sensors.calibration import read_calibration
from lgbatch.config import Settings
from lgbatch.errors import InputError
from tests.helpers.synthetic import SYNTHETIC_SIZE, import_source, synthetic
from tests.reconstruction.helpers import run

CENTRE = (SYNTHETIC_SIZE[0] / 2, SYNTHETIC_SIZE[1] / 2)


def parameters(folder: Path) -> list[float]:
    """The parameters of the one camera of the largest model."""
    (camera,) = pycolmap.Reconstruction(folder / "sparse/0").cameras.values()
    return list(camera.params)


@pytest.mark.parametrize("view", [110, 180])
@pytest.mark.parametrize(
    ("model", "focal_lengths", "distortion"),
    [("OPENCV_FISHEYE", 2, (0.03, 0.01, -0.005, 0.001)), ("RADIAL_FISHEYE", 1, (-0.05, 0.01))],
)
def test_fisheye_photos_without_exif_make_one_model(
    tmp_path: Path, view: int, model: str, focal_lengths: int, distortion: tuple[float, ...]
) -> None:
    focal = math.hypot(*SYNTHETIC_SIZE) / math.radians(view)
    params = (focal,) * focal_lengths + CENTRE + distortion
    source = synthetic(tmp_path, 10, model=model, params=params)
    import_source(tmp_path / "database.db", source, "auto", model)
    result = run(tmp_path)
    assert [m.registered_images for m in result.models] == [10]
    assert result.models[0].mean_reprojection_error < 1
    assert parameters(tmp_path)[0] == pytest.approx(focal, rel=0.03)


PERSPECTIVE = sorted(name for name in pycolmap.CameraModelId.__members__ if name not in ("INVALID", "EQUIRECTANGULAR"))


@pytest.mark.parametrize("model", PERSPECTIVE)
def test_photos_without_exif_make_one_model_with_each_camera_model(tmp_path: Path, model: str) -> None:
    import_source(tmp_path / "database.db", synthetic(tmp_path, 8), "auto", model)
    result = run(tmp_path)
    assert [m.registered_images for m in result.models] == [8]
    assert result.models[0].mean_reprojection_error < 1
    camera = pycolmap.Reconstruction(tmp_path / "sparse/0").cameras[1]
    assert camera.model_name == model
    assert camera.mean_focal_length() == pytest.approx(640, rel=0.05)


def test_few_photos_of_a_camera_keep_one_coefficient(tmp_path: Path) -> None:
    import_source(tmp_path / "database.db", synthetic(tmp_path, 8), "image", "FULL_OPENCV")
    assert run(tmp_path).models[0].registered_images == 8
    for camera in pycolmap.Reconstruction(tmp_path / "sparse/0").cameras.values():
        assert camera.model_name == "FULL_OPENCV" and not camera.params[5:].any()


def test_given_distortion_is_where_mapping_starts(tmp_path: Path) -> None:
    known = (640, 640, *CENTRE, 0.02, 0, 0, 0, 0, 0, 0, 0)
    settings = Settings(camera_model="FULL_OPENCV", camera_params=",".join(map(str, known)))
    source, calibration = synthetic(tmp_path, 8), read_calibration(settings)
    import_source(tmp_path / "database.db", source, "auto", "FULL_OPENCV", calibration=calibration)
    assert run(tmp_path).models[0].registered_images == 8
    assert parameters(tmp_path)[0] == pytest.approx(640, rel=0.01)


def test_photos_that_are_no_panoramas_are_told(tmp_path: Path) -> None:
    source = synthetic(tmp_path, 3)
    with pytest.raises(InputError, match=r"512x384 is no EQUIRECTANGULAR panorama.*another --camera-model"):
        import_source(tmp_path / "database.db", source, "auto", "EQUIRECTANGULAR")


@pytest.mark.parametrize("mapper", ["incremental", "global"])
def test_fixed_intrinsics_are_kept(tmp_path: Path, mapper: str) -> None:
    known = (630, *CENTRE, 0.01)
    calibration = read_calibration(Settings(camera_params=",".join(map(str, known))))
    import_source(tmp_path / "database.db", synthetic(tmp_path, 8), "auto", calibration=calibration)
    assert run(tmp_path, fix_intrinsics=True, mapper=mapper).models[0].registered_images == 8
    assert parameters(tmp_path) == list(known)
    run(tmp_path, mapper=mapper)
    assert parameters(tmp_path)[0] == pytest.approx(640, rel=0.01)
    assert parameters(tmp_path)[0] != 630


def test_a_fixed_fisheye_is_kept(tmp_path: Path) -> None:
    known = (250, 250, *CENTRE, 0.03, 0.01, 0, 0)
    calibration = read_calibration(Settings(camera_model="OPENCV_FISHEYE", camera_params=",".join(map(str, known))))
    source = synthetic(tmp_path, 8, model="OPENCV_FISHEYE", params=known)
    import_source(tmp_path / "database.db", source, "auto", "OPENCV_FISHEYE", calibration=calibration)
    assert run(tmp_path, fix_intrinsics=True).models[0].registered_images == 8
    assert parameters(tmp_path) == list(known)
