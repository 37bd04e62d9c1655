"""How far a COLMAP model is from cameras that are known."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lgbatch.errors import InputError
from lgbatch.reconstruction.pose_errors import (
    aligned_errors,
    pose_auc,
    quantile,
    relative_pose_errors,
    relative_poses,
    rotation_angle,
)
from lgbatch.reconstruction.truth import Array, KnownCamera

if TYPE_CHECKING:
    import pycolmap

AUC_THRESHOLDS = (0.5, 1.0, 5.0, 10.0)
"""Degrees."""


@dataclass(frozen=True)
class Accuracy:
    """A model against known cameras."""

    registered: int
    """Known cameras that the model has."""
    known: int
    auc: dict[float, float]
    """Threshold in degrees to relative-pose AUC in percent, over all pairs of known cameras."""
    position_median: float | None
    """Position errors, after the similarity that fits the camera centres best, in units of the truth.
    These four are None where that fit is undetermined: under 3 registered cameras, or all on one line."""
    position_max: float | None
    rotation_median: float | None
    """Rotation errors after the same alignment, in degrees."""
    rotation_max: float | None
    relative_rotation_median: float | None
    """Angle between true and found relative rotations, over pairs of registered cameras, in degrees. It needs no
    alignment, which errors of position can tilt, so it is the one that shows a keypoint bias of half a pixel."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "registered_cameras": self.registered,
            "known_cameras": self.known,
            "relative_pose_auc": {f"{threshold:g}": value for threshold, value in self.auc.items()},
            "position_error_median": self.position_median,
            "position_error_max": self.position_max,
            "rotation_error_deg_median": self.rotation_median,
            "rotation_error_deg_max": self.rotation_max,
            "relative_rotation_error_deg_median": self.relative_rotation_median,
        }


def evaluate(model: "Path | pycolmap.Reconstruction", truth: Mapping[str, KnownCamera]) -> Accuracy:
    """Compare a COLMAP model, or the folder it is in, with known cameras, matched by image name.

    Images that nobody knows the camera of are left out. Raises InputError when the folder holds no model, or
    fewer than two cameras are known.
    """
    reconstruction = _read_model(model) if isinstance(model, Path) else model
    poses = {
        image.name: np.asarray(image.cam_from_world().matrix())
        for image in reconstruction.images.values()
        if image.has_pose
    }
    return compare(poses, truth)


def compare(poses: Mapping[str, Array], truth: Mapping[str, KnownCamera]) -> Accuracy:
    """Compare poses camera_from_world, (3, 4) each and in a frame and scale of their own, with known cameras.

    Raises InputError when fewer than two cameras are known.
    """
    if len(truth) < 2:
        raise InputError(f"accuracy is about pairs of cameras: at least two must be known, not {len(truth)}")
    true = np.stack([camera.camera_from_world for camera in truth.values()])
    missing = np.full((3, 4), np.nan)
    found = np.stack([poses.get(name, missing) for name in truth])
    errors = relative_pose_errors(found, true)
    registered = np.isfinite(found).all(axis=(1, 2))
    positions, rotations = aligned_errors(found[registered], true[registered])
    relative = rotation_angle(relative_poses(found[registered])[0], relative_poses(true[registered])[0])
    return Accuracy(
        registered=int(registered.sum()),
        known=len(truth),
        auc={threshold: pose_auc(errors, threshold) for threshold in AUC_THRESHOLDS},
        position_median=quantile(positions, 0.5),
        position_max=quantile(positions, 1),
        rotation_median=quantile(rotations, 0.5),
        rotation_max=quantile(rotations, 1),
        relative_rotation_median=quantile(relative, 0.5),
    )


def _read_model(folder: Path) -> "pycolmap.Reconstruction":
    import pycolmap

    try:
        return pycolmap.Reconstruction(str(folder))
    except (OSError, ValueError, RuntimeError, IndexError, MemoryError):
        raise InputError(f"no COLMAP model in {folder}: give the folder with cameras.bin, such as sparse/0") from None
