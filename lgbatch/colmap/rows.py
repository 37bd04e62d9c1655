"""COLMAP's library and its files: its log, its databases on disk, photos as it reads them, images as it stores them.

pycolmap is imported inside the functions: where it comes before zlib or numpy, its own symbols shadow theirs.
"""

from typing import TYPE_CHECKING

import numpy as np

from lgbatch.colmap.sqlite import WAY_OUT
from lgbatch.errors import DatabaseError

if TYPE_CHECKING:
    import pycolmap

_FOCAL_FACTOR = 1.2  # COLMAP's guess of a focal length in image widths (the longer side), where EXIF gives none


def add_camera(db: "pycolmap.Database", model: str, size: tuple[int, int], focal: float | None) -> int:
    """Write a camera of `size` (width, height) and its rig, as COLMAP's import_images does; the camera's id.

    `focal` is in pixels; without it COLMAP's guess is taken, 1.2 times the longer side.
    """
    import pycolmap

    camera = pycolmap.Camera.create_from_model_name(0, model, focal or _FOCAL_FACTOR * max(size), *size)
    camera.has_prior_focal_length = focal is not None
    camera.camera_id = db.write_camera(camera)
    rig = pycolmap.Rig()
    rig.add_ref_sensor(camera.sensor_id)
    db.write_rig(rig)
    return camera.camera_id


def add_image(db: "pycolmap.Database", name: str, camera_id: int, position: tuple[float, float, float] | None) -> None:
    """Write an image, its frame and, where the photo has a GPS `position`, its pose prior, as import_images does."""
    import pycolmap

    image = pycolmap.Image(name=name, camera_id=camera_id)
    image.image_id = db.write_image(image)
    rig = db.read_rig_with_sensor(db.read_camera(camera_id).sensor_id)
    if rig is None:
        raise DatabaseError(f"camera {camera_id} of the database has no rig, as in old COLMAP: {WAY_OUT}")
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
