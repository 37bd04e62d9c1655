"""Ground-truth cameras, and the reader of the Strecha benchmark's .camera files."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lgbatch.errors import InputError

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class KnownCamera:
    """Ground-truth pose and calibration of a camera, in the world units of the ground truth."""

    camera_from_world: Array
    """(3, 4) float64, rotation and translation. The camera looks along +z, with x to the right and y down."""
    calibration: Array
    """(3, 3) float64, focal lengths and principal point in pixels, top-left pixel centre (0, 0)."""
    size: tuple[int, int]
    """(width, height) in pixels."""

    def project(self, points: Array) -> Array:
        """Project world points (N, 3) in front of the camera to pixels (N, 2), top-left pixel centre (0, 0)."""
        rotation, translation = self.camera_from_world[:, :3], self.camera_from_world[:, 3]
        rays = (points @ rotation.T + translation) @ self.calibration.T
        return rays[:, :2] / rays[:, 2:]


def read_strecha(folder: Path) -> dict[str, KnownCamera]:
    """Read the files NAME.camera of the benchmark of Strecha et al. (CVPR 2008). Returns the cameras by image name.

    A file contains the calibration matrix K (3 rows), a distortion row, the rotation world_from_camera (3 rows), the
    camera centre and the image size. Raises InputError if `folder` has no such file, or one is malformed.
    """
    files = sorted(folder.glob("*.camera"))
    if not files:
        raise InputError(f"no .camera files in {folder}: give the folder with NAME.camera for each image")
    return {path.name.removesuffix(".camera"): _read_camera(path) for path in files}


def _read_camera(path: Path) -> KnownCamera:
    try:
        values = np.array(path.read_text(encoding="utf-8").split(), dtype=np.float64)
        calibration, rotation = values[:9].reshape(3, 3), values[12:21].reshape(3, 3).T
        centre, (width, height) = values[21:24], values[24:]
    except (OSError, ValueError):
        raise InputError(f"cannot read {path}: expected the 26 numbers of a .camera file, see read_strecha") from None
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3) or np.linalg.det(rotation) < 0:
        raise InputError(f"rows 5 to 7 of {path} are not a rotation matrix: expected a .camera file, see read_strecha")
    # The file has six digits: use the nearest rotation matrix.
    u, _, vt = np.linalg.svd(rotation)
    pose = np.column_stack([u @ vt, -u @ vt @ centre])
    return KnownCamera(camera_from_world=pose, calibration=calibration, size=(int(width), int(height)))
