"""Write cameras, rigs, images, frames and pose priors to a COLMAP database, as pycolmap.import_images does."""

import math
from typing import TYPE_CHECKING

import numpy as np

from lgbatch.colmap.sensors.exif import Vector
from lgbatch.colmap.sqlite import REBUILD_HINT
from lgbatch.errors import DatabaseError, InputError

if TYPE_CHECKING:
    import pycolmap

_FOCAL_FACTOR = 1.2  # COLMAP's default focal length without EXIF, in units of the longer image side
_FISHEYE_VIEW = math.radians(150)  # default view of a fisheye lens across the diagonal


def fisheye_focal(size: tuple[int, int]) -> float:
    """Return the prior of the focal length in pixels of a fisheye lens, for photos of `size` (width, height)."""
    return math.hypot(*size) / _FISHEYE_VIEW


def new_camera(model: str, size: tuple[int, int], focal: float | None) -> "pycolmap.Camera":
    """Return a camera without distortion.

    `size` is (width, height). `focal` is the EXIF focal length in pixels; None selects COLMAP's default, 1.2 times the
    longer side. For fisheye models, of which COLMAP verifies no pair without a prior of the focal length, None selects
    a view of 150 degrees across the diagonal, as the prior; views of 100 to 210 degrees are mapped from it (measured).

    Raises InputError if an EQUIRECTANGULAR photo is not twice as wide as high.
    """
    import pycolmap

    if model == "EQUIRECTANGULAR" and abs(size[0] - 2 * size[1]) > 2:
        raise InputError(
            f"a photo of {size[0]}x{size[1]} is no EQUIRECTANGULAR panorama, which is twice as wide as high: use "
            "another --camera-model"
        )
    known = focal is not None
    if focal is None and model.endswith("FISHEYE"):
        focal, known = fisheye_focal(size), True
    camera = pycolmap.Camera.create_from_model_name(0, model, focal or _FOCAL_FACTOR * max(size), *size)
    camera.has_prior_focal_length = known
    return camera


def add_camera(db: "pycolmap.Database", camera: "pycolmap.Camera") -> int:
    """Write a camera and its rig. Returns the camera id."""
    import pycolmap

    camera.camera_id = db.write_camera(camera)
    rig = pycolmap.Rig()
    rig.add_ref_sensor(camera.sensor_id)
    db.write_rig(rig)
    return camera.camera_id


def add_image(
    db: "pycolmap.Database", name: str, camera_id: int, position: Vector | None, gravity: Vector | None
) -> None:
    """Write an image, its frame and, if its `position` or `gravity` is known, its pose prior.

    `position` is latitude and longitude in degrees and altitude in metres (WGS84), `gravity` its direction in the
    camera. Raises DatabaseError if the camera has no rig.
    """
    import pycolmap

    image = pycolmap.Image(name=name, camera_id=camera_id)
    image.image_id = db.write_image(image)
    rig = db.read_rig_with_sensor(db.read_camera(camera_id).sensor_id)
    if rig is None:
        raise DatabaseError(
            f"camera {camera_id} in the database has no rig, as written by old versions of COLMAP: {REBUILD_HINT}"
        )
    frame = pycolmap.Frame(rig_id=rig.rig_id)
    frame.add_data_id(image.data_id)
    db.write_frame(frame)
    if position or gravity:
        prior = pycolmap.PosePrior(corr_data_id=image.data_id)
        if position:
            prior.position = np.array(position)
            prior.coordinate_system = pycolmap.PosePriorCoordinateSystem.WGS84
        if gravity:
            prior.gravity = np.array(gravity)
        db.write_pose_prior(prior)
