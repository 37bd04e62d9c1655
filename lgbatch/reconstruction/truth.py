"""How far a COLMAP model is from cameras that are known."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lgbatch.errors import InputError

if TYPE_CHECKING:
    pass

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class KnownCamera:
    """Where a camera truly is. World units are whatever the ground truth came in."""

    camera_from_world: Array
    """(3, 4) float64, rotation and translation; the camera looks along +z, x to the right, y down."""
    calibration: Array
    """(3, 3) float64, focal lengths and principal point in pixels, top-left pixel centre (0, 0)."""
    size: tuple[int, int]
    """(width, height) in pixels."""

    def project(self, points: Array) -> Array:
        """World points (N, 3), in front of the camera, to pixels (N, 2), top-left pixel centre (0, 0)."""
        rotation, translation = self.camera_from_world[:, :3], self.camera_from_world[:, 3]
        rays = (points @ rotation.T + translation) @ self.calibration.T
        return rays[:, :2] / rays[:, 2:]


def read_strecha(folder: Path) -> dict[str, KnownCamera]:
    """Image name to camera, from the files NAME.camera of Strecha et al.'s benchmark (CVPR 2008).

    Such a file holds K (3 rows), a distortion row, the rotation world_from_camera (3 rows), the camera centre
    and the image size. Raises InputError when there is none, or one of them is something else.
    """
    files = sorted(folder.glob("*.camera"))
    if not files:
        raise InputError(f"no .camera files in {folder}: give the folder that holds NAME.camera for each image")
    return {path.name.removesuffix(".camera"): _read_camera(path) for path in files}


def _read_camera(path: Path) -> KnownCamera:
    try:
        values = np.array(path.read_text(encoding="utf-8").split(), dtype=np.float64)
        calibration, rotation = values[:9].reshape(3, 3), values[12:21].reshape(3, 3).T
        centre, (width, height) = values[21:24], values[24:]
    except (OSError, ValueError):
        raise InputError(f"cannot read {path}: a .camera file holds 26 numbers; see read_strecha") from None
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3) or np.linalg.det(rotation) < 0:
        raise InputError(f"{path} holds no rotation in its rows 5 to 7; see read_strecha")
    # The file has six digits; the nearest rotation has them all.
    u, _, vt = np.linalg.svd(rotation)
    pose = np.column_stack([u @ vt, -u @ vt @ centre])
    return KnownCamera(camera_from_world=pose, calibration=calibration, size=(int(width), int(height)))
