"""Camera models with one distortion coefficient, in place of those with several while a model is small.

Two or three images do not determine several coefficients: they make up for each other, and soon no further image fits.
"""

import copy
import math
from typing import TYPE_CHECKING

import numpy as np

from lgbatch.colmap.sensors.rows import fisheye_focal

if TYPE_CHECKING:
    import pycolmap

_SIMPLE = {
    "RADIAL": "SIMPLE_RADIAL",
    "OPENCV": "SIMPLE_RADIAL",
    "FULL_OPENCV": "SIMPLE_RADIAL",
    "RADIAL_FISHEYE": "SIMPLE_RADIAL_FISHEYE",
    "OPENCV_FISHEYE": "SIMPLE_RADIAL_FISHEYE",
    "THIN_PRISM_FISHEYE": "SIMPLE_RADIAL_FISHEYE",
    "RAD_TAN_THIN_PRISM_FISHEYE": "SIMPLE_RADIAL_FISHEYE",
    "EUCM": "SIMPLE_RADIAL_FISHEYE",
    "FOV": "SIMPLE_RADIAL_FISHEYE",
}
"""EUCM and FOV agree with their simple model up to the third power of the angle, the others are extensions of it."""


def has_simple_model(camera: "pycolmap.Camera") -> bool:
    """Whether there is a simpler model for the camera."""
    return camera.model_name in _SIMPLE


def has_default_distortion(camera: "pycolmap.Camera") -> bool:
    """Whether the distortion of a camera is that which COLMAP starts from."""
    extra = camera.extra_params_idxs()
    return np.array_equal(camera.params[extra], _new(camera, camera.model_name).params[extra])


def simplify(camera: "pycolmap.Camera") -> "pycolmap.Camera":
    """Return a camera with one focal length and one radial coefficient, which is 0. Id and principal point stay.

    A camera without a focal length from EXIF that becomes a fisheye has the prior of one, see `new_camera`.
    """
    simple = _new(camera, _SIMPLE[camera.model_name])
    simple.principal_point_x, simple.principal_point_y = camera.principal_point_x, camera.principal_point_y
    simple.has_prior_focal_length = camera.has_prior_focal_length
    if simple.model_name.endswith("FISHEYE") and not simple.has_prior_focal_length:
        simple.focal_length, simple.has_prior_focal_length = fisheye_focal((camera.width, camera.height)), True
    return simple


def extend(simple: "pycolmap.Camera", camera: "pycolmap.Camera") -> "pycolmap.Camera":
    """Return a camera of the model of `camera` that projects as `simple`, exactly or up to the third power."""
    focal, coefficient = simple.focal_length, simple.params[simple.extra_params_idxs()[0]]
    distortion = [coefficient]
    if camera.model_name == "EUCM":
        distortion = [min(max(2 / 3 - 2 * coefficient, 0.0), 1.0), 1.0]
    elif camera.model_name == "FOV":
        omega = max(2 * math.atan(math.sqrt(max(1 - 3 * coefficient, 0.0)) / 2), 0.01)
        focal, distortion = focal * omega / (2 * math.tan(omega / 2)), [omega]
    extended = copy.copy(camera)
    params = np.array(camera.params)
    params[camera.focal_length_idxs()] = focal
    params[camera.principal_point_idxs()] = simple.principal_point_x, simple.principal_point_y
    params[camera.extra_params_idxs()[: len(distortion)]] = distortion
    extended.params = params.tolist()
    return extended


def is_plausible(camera: "pycolmap.Camera") -> bool:
    """Whether focal length, principal point and distortion are within the limits of COLMAP's mapper.

    The limit of the distortion coefficients is 1. EUCM's beta, which is about 1, has 10.
    """
    return not camera.has_bogus_params(0.1, 10.0, 10.0 if camera.model_name == "EUCM" else 1.0)


def _new(camera: "pycolmap.Camera", model: str) -> "pycolmap.Camera":
    import pycolmap

    size = camera.width, camera.height
    return pycolmap.Camera.create_from_model_name(camera.camera_id, model, camera.mean_focal_length(), *size)
