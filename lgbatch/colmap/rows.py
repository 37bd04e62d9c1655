"""Write cameras, rigs, images, frames and pose priors to a COLMAP database, as pycolmap.import_images does."""

import math
from typing import TYPE_CHECKING

import numpy as np

from lgbatch.colmap.sqlite import REBUILD_HINT
from lgbatch.errors import DatabaseError

if TYPE_CHECKING:
    import pycolmap

_FOCAL_FACTOR = 1.2  # COLMAP's default focal length without EXIF, in units of the longer image side
_FISHEYE_VIEW = math.radians(150)  # default view of a fisheye lens across the diagonal


def new_camera(model: str, size: tuple[int, int], focal: float | None) -> "pycolmap.Camera":
    """Return a camera without distortion.

    `size` is (width, height). `focal` is the EXIF focal length in pixels; None selects COLMAP's default, 1.2 times the
    longer side. For fisheye models, of which COLMAP verifies no pair without a prior of the focal length, None selects
    a view of 150 degrees across the diagonal, as the prior; views of 100 to 210 degrees are mapped from it (measured).
    """
    import pycolmap

    known = focal is not None
    if focal is None and model.endswith("FISHEYE"):
        focal, known = math.hypot(*size) / _FISHEYE_VIEW, True
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


def add_image(db: "pycolmap.Database", name: str, camera_id: int, position: tuple[float, float, float] | None) -> None:
    """Write an image, its frame and, if the photo has a GPS `position`, its pose prior.

    `position` is latitude and longitude in degrees and altitude in metres (WGS84). Raises DatabaseError if the camera
    has no rig.
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
    if position:
        prior = pycolmap.PosePrior(
            corr_data_id=image.data_id,
            position=np.array(position),
            coordinate_system=pycolmap.PosePriorCoordinateSystem.WGS84,
        )
        db.write_pose_prior(prior)
