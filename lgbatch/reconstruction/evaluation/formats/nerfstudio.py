"""The transforms.json of nerfstudio, instant-ngp and NeRF's synthetic scenes."""

import json
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from lgbatch.colmap.sensors.calibration import KnownCamera as Intrinsics
from lgbatch.errors import InputError
from lgbatch.reconstruction.evaluation.truth import KnownPose, camera_from_matrix

FILE = "transforms.json"
_COLMAP_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
"""OpenGL's camera looks along -z, with y up."""
_PERSPECTIVE = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "PERSPECTIVE")


def read_nerfstudio(path: Path) -> tuple[dict[str, KnownPose], int]:
    """Read the frames of a transforms.json. Returns the cameras by file path, and the number of frames without a pose.

    `transform_matrix` is world_from_camera with OpenGL's axes. Intrinsics of a frame precede those of the file; they
    have pixel centres at half integers, as COLMAP's. The transforms of the world that nerfstudio records
    (`applied_transform`) stay applied. Raises InputError if the file cannot be read.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
        frames = [(str(frame["file_path"]), frame["transform_matrix"], {**data, **frame}) for frame in data["frames"]]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"cannot read {path}: expected frames with file_path and transform_matrix") from None
    cameras: dict[str, KnownPose] = {}
    skipped = 0
    for file_path, rows, values in frames:
        where = f"{path}, frame {file_path}"
        try:
            matrix = np.array(rows, dtype=np.float64)
            intrinsics = _intrinsics(values)
            if intrinsics and not np.isfinite(intrinsics.params).all():
                raise ValueError
        except (ValueError, TypeError, OverflowError):
            raise InputError(f"{where}: expected numbers for its pose and intrinsics") from None
        if not np.isfinite(matrix).all():
            skipped += 1
            continue
        pose = camera_from_matrix(matrix @ _COLMAP_FROM_OPENGL) if matrix.shape in ((3, 4), (4, 4)) else None
        name = str(PurePosixPath(file_path.replace("\\", "/")))
        if pose is None or name in cameras:
            raise InputError(f"{where}: expected a 4 x 4 camera pose without scale, and each file once")
        cameras[name] = KnownPose(pose, intrinsics)
    return cameras, skipped


def _intrinsics(values: dict[str, Any]) -> Intrinsics | None:
    """The camera of a frame in a model of COLMAP; None if it is incomplete, or COLMAP has no such model."""
    if not values.get("w") or not values.get("h"):
        return None
    width, height = int(values["w"]), int(values["h"])
    fx = _focal_length(values, "x", width)
    fy = _focal_length(values, "y", height) or fx
    if not fx or not fy:
        return None
    centre = float(values.get("cx", width / 2)), float(values.get("cy", height / 2))
    k1, k2, k3, k4, p1, p2 = (float(values.get(key, 0)) for key in ("k1", "k2", "k3", "k4", "p1", "p2"))
    model = values.get("camera_model", "OPENCV")
    pinhole, size = (fx, fy, *centre), (width, height)
    if model == "OPENCV_FISHEYE":
        return Intrinsics(model, (*pinhole, k1, k2, k3, k4), size)
    if model not in _PERSPECTIVE or k4:
        return None
    if k3:
        return Intrinsics("FULL_OPENCV", (*pinhole, k1, k2, p1, p2, k3, 0.0, 0.0, 0.0), size)
    return Intrinsics("OPENCV", (*pinhole, k1, k2, p1, p2), size)


def _focal_length(values: dict[str, Any], axis: str, side: int) -> float | None:
    """The focal length in pixels along an axis, given itself or as the angle of view in radians."""
    if f"fl_{axis}" in values:
        return float(values[f"fl_{axis}"])
    angle = float(values.get(f"camera_angle_{axis}", 0))
    return side / 2 / float(np.tan(angle / 2)) if 0 < angle < np.pi else None
