"""Intrinsics in mapping: fisheye lenses, and cameras that are kept."""

import math
from pathlib import Path

import pytest

from lgbatch.colmap.calibration import read_calibration
from lgbatch.config import Settings
from tests.helpers.synthetic import SYNTHETIC_SIZE, import_source, synthetic
from tests.reconstruction.helpers import run

CENTRE = (SYNTHETIC_SIZE[0] / 2, SYNTHETIC_SIZE[1] / 2)


def parameters(folder: Path) -> list[float]:
    """The parameters of the one camera of the largest model."""
    import pycolmap

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
