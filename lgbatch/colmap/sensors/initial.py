"""The cameras that an import gives to images, before there is a database."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from lgbatch.colmap.log import colmap_log_off
from lgbatch.colmap.sensors.calibration import read_calibration
from lgbatch.colmap.sensors.cameras import CameraChoice, add_images
from lgbatch.colmap.sensors.rigs import read_rigs
from lgbatch.colmap.sqlite import open_database
from lgbatch.config import Settings
from lgbatch.storage.features import FeatureStore

if TYPE_CHECKING:
    import pycolmap


def initial_cameras(
    image_folder: Path, names: Sequence[str], features: FeatureStore, settings: Settings
) -> dict[str, "pycolmap.Camera"]:
    """Return the camera of each image by name, as import_stores makes it. Raises as import_database does."""
    choice = CameraChoice(
        settings.camera_mode,
        settings.camera_model,
        read_calibration(settings),
        read_rigs(settings),
        settings.rotation != "none",
        {name: features.orientation(name) for name in names},
    )
    sizes = {name: features.image_size(name) for name in names}
    with (
        TemporaryDirectory() as folder,
        colmap_log_off(),
        open_database(Path(folder, "database.db"), shared=False) as db,
    ):
        add_images(db, image_folder, sizes, choice)
        cameras = {camera.camera_id: camera for camera in db.read_all_cameras()}
        return {image.name: cameras[image.camera_id] for image in db.read_all_images()}
