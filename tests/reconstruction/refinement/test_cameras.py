"""Which intrinsics are refined."""

from dataclasses import replace
from pathlib import Path

import pycolmap
import pytest

from lgbatch.reconstruction.refinement.cameras import initial_freedom
from lgbatch.reconstruction.refinement.model import refine_model
from lgbatch.reconstruction.refinement.photos import GreyPhotos
from tests.reconstruction.refinement.helpers import FOCAL, make_scene
from tests.reconstruction.refinement.test_model import AUTO, refined

CENTRE = 190.0, 155.0


def test_a_principal_point_off_the_centre_is_found(tmp_path: Path) -> None:
    outcome = refined(make_scene(tmp_path / "photos", count=8, centre=CENTRE))
    assert outcome.figures["principal_points"] == 1
    focal, x, y, _ = outcome.model.cameras[1].params
    assert (x, y) == pytest.approx((CENTRE[0] + 0.5, CENTRE[1] + 0.5), abs=0.3)
    assert focal == pytest.approx(FOCAL, rel=0.002)


def test_cameras_of_one_photo_keep_their_principal_point(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "photos", centre=CENTRE, shared=False)
    for intrinsics in "auto", "all":
        outcome = refined(scene, replace(AUTO, intrinsics=intrinsics))
        assert outcome.figures.get("principal_points", 0) == 0
        assert all(tuple(c.params[1:3]) == (200, 150) for c in outcome.model.cameras.values())


def test_intrinsics_as_asked(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "photos", count=8, centre=CENTRE)
    before = scene.model.cameras[1].params.tolist()
    for options in replace(AUTO, fixed=True), replace(AUTO, intrinsics="none"):
        assert refined(scene, options).model.cameras[1].params.tolist() == before
    focal = refined(scene, replace(AUTO, intrinsics="focal")).model.cameras[1].params.tolist()
    assert focal[1:3] == before[1:3] and focal[0] != before[0]
    assert refined(scene, replace(AUTO, intrinsics="all")).model.cameras[1].params[1] == pytest.approx(190.5, abs=0.3)


def test_several_coefficients_need_five_images() -> None:
    model = pycolmap.Reconstruction()
    for camera_id, name in enumerate(("OPENCV", "SIMPLE_RADIAL"), 1):
        model.add_camera_with_trivial_rig(pycolmap.Camera.create_from_model_name(camera_id, name, FOCAL, 400, 300))
    assert initial_freedom(model, fixed=False, intrinsics="auto").fixed == {1}
    assert initial_freedom(model, fixed=True, intrinsics="auto").fixed == {1, 2}


def test_a_second_radial_coefficient_is_added_where_photos_need_it(tmp_path: Path) -> None:
    outcome = refined(make_scene(tmp_path / "photos", count=8, distortion=(-0.08, 0.12)))
    assert outcome.figures["higher_models"] == 1
    assert outcome.model.cameras[1].model_name == "RADIAL"
    assert outcome.model.cameras[1].params[3:] == pytest.approx((-0.08, 0.12), abs=0.04)
    assert refined(make_scene(tmp_path / "plain", count=8)).model.cameras[1].model_name == "SIMPLE_RADIAL"


def test_a_model_of_a_rig_keeps_its_principal_points(tmp_path: Path) -> None:
    options = pycolmap.SyntheticDatasetOptions(
        num_rigs=1,
        num_cameras_per_rig=2,
        num_frames_per_rig=6,
        num_points3D=400,
        sensor_from_rig_translation_stddev=0.1,
    )
    pycolmap.set_random_seed(0)
    model = pycolmap.synthesize_dataset(options)
    pycolmap.synthesize_noise(pycolmap.SyntheticNoiseOptions(point2D_stddev=0.5), model)
    outcome = refine_model(model, GreyPhotos(tmp_path), AUTO)
    assert outcome.model is model and "change" not in outcome.figures
