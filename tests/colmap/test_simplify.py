"""Camera models with one distortion coefficient in place of those with several."""

import math

import numpy as np
import pycolmap
import pytest

from lgbatch.colmap.sensors.rows import fisheye_focal
from lgbatch.colmap.sensors.simplify import (
    extend,
    has_default_distortion,
    has_simple_model,
    is_plausible,
    simplify,
)

SIZE = (1000, 800)
MODELS = [name for name in pycolmap.CameraModelId.__members__ if name not in ("INVALID", "EQUIRECTANGULAR")]


def camera(model: str) -> pycolmap.Camera:
    new = pycolmap.Camera.create_from_model_name(3, model, 900, *SIZE)
    new.has_prior_focal_length = True
    return new


def pixels(of: pycolmap.Camera, angle: float) -> np.ndarray:
    """Pixels (N, 2) of rays up to an angle in degrees off the axis."""
    theta, phi = np.meshgrid(np.radians(np.linspace(0, angle, 9)), np.linspace(0, 2 * math.pi, 12))
    rays = [np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)]
    return of.img_from_cam(np.stack(rays, axis=-1).reshape(-1, 3))


def test_each_model_with_several_coefficients_has_a_simple_one() -> None:
    several = {model for model in MODELS if len(camera(model).extra_params_idxs()) > 1}
    assert {model for model in MODELS if has_simple_model(camera(model))} == several | {"FOV"}


@pytest.mark.parametrize("model", [model for model in MODELS if has_simple_model(camera(model))])
@pytest.mark.parametrize("coefficient", [-0.05, 0.0, 0.02])
def test_the_extended_camera_projects_as_the_simple_one(model: str, coefficient: float) -> None:
    full = camera(model)
    simple = simplify(full)
    assert simple.camera_id == 3 and simple.focal_length == 900 and simple.has_prior_focal_length
    simple.params = [880, 505, 395, coefficient]
    extended = extend(simple, full)
    assert extended.model_name == model and is_plausible(extended) and has_default_distortion(full)
    tolerance = 1 if model in ("EUCM", "FOV") else 1e-6
    np.testing.assert_allclose(pixels(extended, 25), pixels(simple, 25), atol=tolerance)


@pytest.mark.parametrize("model", ["EUCM", "FOV"])
def test_a_pinhole_camera_is_within_the_range_of_the_model(model: str) -> None:
    full = camera(model)
    simple = simplify(full)
    simple.params = [900, 500, 400, 0.4]  # more than that of a pinhole camera, 1 / 3
    np.testing.assert_allclose(pixels(extend(simple, full), 25), pixels(camera("PINHOLE"), 25), atol=0.01)


def test_a_camera_without_exif_that_becomes_a_fisheye_has_its_prior() -> None:
    full = camera("EUCM")
    full.has_prior_focal_length = False
    simple = simplify(full)
    assert simple.has_prior_focal_length and simple.focal_length == pytest.approx(fisheye_focal(SIZE))
    perspective = camera("FULL_OPENCV")
    perspective.has_prior_focal_length = False
    assert not simplify(perspective).has_prior_focal_length


def test_given_distortion_and_implausible_results_are_recognised() -> None:
    given = camera("OPENCV")
    given.params = [900, 900, 500, 400, 0.1, 0, 0, 0]
    assert not has_default_distortion(given) and is_plausible(given)
    given.params = [900, 900, 500, 400, 1.1, 0, 0, 0]
    assert not is_plausible(given)
