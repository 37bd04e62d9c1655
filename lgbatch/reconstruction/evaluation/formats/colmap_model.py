"""COLMAP models, as the subject of an evaluation and as its ground truth."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lgbatch.colmap.sensors.calibration import KnownCamera as Intrinsics
from lgbatch.errors import InputError
from lgbatch.reconstruction.evaluation.truth import Array, KnownPose
from lgbatch.workspace.folder import Workspace

if TYPE_CHECKING:
    import pycolmap


def is_model(folder: Path) -> bool:
    """Whether a folder has the files of a COLMAP model, binary or text."""
    return any(all((folder / f"{name}.{kind}").is_file() for name in ("cameras", "images")) for kind in ("bin", "txt"))


def model_in(folder: Path) -> Path | None:
    """Return `folder` if it has a COLMAP model, the largest model of a workspace, or None for others."""
    return next(filter(is_model, (folder, Workspace(folder).sparse / "0")), None)


def find_model(folder: Path) -> Path:
    """Return the folder of a model as `model_in`. Raises InputError if there is none."""
    if model := model_in(folder):
        return model
    raise InputError(_no_model(folder))


def read_model(folder: Path) -> "pycolmap.Reconstruction":
    """Read a model. Raises InputError if the folder has none, or its files are inconsistent."""
    import pycolmap

    try:
        return pycolmap.Reconstruction(str(folder))
    except (OSError, ValueError, RuntimeError, IndexError, MemoryError):
        if not is_model(folder):
            raise InputError(_no_model(folder)) from None
        raise InputError(f"the files of the model {folder} are damaged: write or copy them again") from None


def model_poses(model: "pycolmap.Reconstruction") -> dict[str, Array]:
    """The poses camera_from_world (3, 4) of the registered images, by name."""
    return {
        image.name: np.asarray(image.cam_from_world().matrix()) for image in model.images.values() if image.has_pose
    }


def read_colmap(folder: Path) -> dict[str, KnownPose]:
    """Read the registered images of a model as known cameras, by name. Raises InputError as `read_model`."""
    model = read_model(folder)
    intrinsics = {
        camera_id: Intrinsics(camera.model_name, tuple(map(float, camera.params)), (camera.width, camera.height))
        for camera_id, camera in model.cameras.items()
    }
    cameras = {image.name: intrinsics[image.camera_id] for image in model.images.values()}
    return {name: KnownPose(pose, cameras[name]) for name, pose in model_poses(model).items()}


def _no_model(folder: Path) -> str:
    return f"no COLMAP model in {folder}: give the folder with cameras.bin, such as sparse/0"
