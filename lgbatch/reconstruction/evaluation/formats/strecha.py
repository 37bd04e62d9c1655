"""The .camera files of the benchmark of Strecha et al. (CVPR 2008)."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lgbatch.errors import InputError
from lgbatch.reconstruction.evaluation.truth import KnownCamera, camera_from_matrix


def read_strecha(folder: Path) -> dict[str, KnownCamera]:
    """Read the files NAME.camera of the benchmark of Strecha et al. (CVPR 2008). Returns the cameras by image name.

    A file contains the calibration matrix K (3 rows), a distortion row, the rotation world_from_camera (3 rows), the
    camera centre and the image size. Raises InputError if `folder` has no such file, or one is malformed.
    """
    files = sorted(folder.glob("*.camera"))
    if not files:
        raise InputError(f"no .camera files in {folder}: give the folder with NAME.camera for each image")
    return {path.name.removesuffix(".camera"): _read_camera(path) for path in files}


def write_strecha(cameras: Mapping[str, KnownCamera], folder: Path) -> None:
    """Write the files that read_strecha reads, with cameras by image name. Raises InputError if they cannot be."""
    try:
        folder.mkdir(exist_ok=True)
        for name, camera in cameras.items():
            rotation, translation = camera.camera_from_world[:, :3].T, camera.camera_from_world[:, 3]
            rows = [*camera.calibration, np.zeros(3), *rotation, -rotation @ translation, np.array(camera.size)]
            lines = [" ".join(map(repr, row.tolist())) for row in rows]
            (folder / f"{name}.camera").write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}; choose another folder") from None


def _read_camera(path: Path) -> KnownCamera:
    try:
        values = np.array(path.read_text(encoding="utf-8").split(), dtype=np.float64)
        calibration, rotation = values[:9].reshape(3, 3), values[12:21].reshape(3, 3)
        centre, (width, height) = values[21:24], values[24:]
    except (OSError, ValueError):
        raise InputError(f"cannot read {path}: expected the 26 numbers of a .camera file, see read_strecha") from None
    pose = camera_from_matrix(np.column_stack([rotation, centre]))
    if pose is None:
        raise InputError(f"rows 5 to 7 of {path} are not a rotation matrix: expected a .camera file, see read_strecha")
    return KnownCamera(camera_from_world=pose, calibration=calibration, size=(int(width), int(height)))
