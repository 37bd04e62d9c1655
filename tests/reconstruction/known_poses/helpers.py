"""A workspace of a synthetic scene, and the model that it is of."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lgbatch.workspace.folder import Workspace
from tests.helpers.synthetic import SYNTHETIC_SIZE, Source, take
from tests.reconstruction.helpers import fill

if TYPE_CHECKING:
    import pycolmap

PARAMS = [640.0, 256.0, 192.0, 0.02]


def known_scene(folder: Path, images: int = 6) -> tuple[Workspace, "pycolmap.Reconstruction"]:
    """Write the photos, the database and, to truth/, the true model of a scene; matches are exact."""
    import pycolmap

    pycolmap.set_random_seed(0)
    options = pycolmap.SyntheticDatasetOptions(
        num_rigs=1,
        num_frames_per_rig=images,
        num_points3D=120,
        camera_width=SYNTHETIC_SIZE[0],
        camera_height=SYNTHETIC_SIZE[1],
        camera_params=PARAMS,
    )
    source = Source()
    with pycolmap.Database.open(folder / "synthetic.db") as db:
        truth = pycolmap.synthesize_dataset(options, db)
        names = {image.image_id: f"{image.image_id}.jpg" for image in db.read_all_images()}
        take(db, names, source, folder)
    for image_id, name in names.items():
        truth.image(image_id).name = name
    (folder / "truth").mkdir()
    truth.write(folder / "truth")
    fill(folder, source)
    return Workspace(folder), truth


def poses_of(model: "pycolmap.Reconstruction") -> dict[str, list[list[float]]]:
    """camera_from_world of the images of a model, by name."""
    images = (image for image in model.images.values() if image.has_pose)
    return {image.name: np.round(image.cam_from_world().matrix(), 12).tolist() for image in images}
