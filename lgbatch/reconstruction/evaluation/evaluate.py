"""Evaluate a COLMAP model against ground-truth cameras: relative-pose AUC, and position and rotation errors."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lgbatch.errors import InputError
from lgbatch.reconstruction.evaluation.formats.colmap_model import model_poses, read_model
from lgbatch.reconstruction.evaluation.pose_errors import (
    aligned_errors,
    pose_auc,
    relative_errors,
    relative_pose_errors,
)
from lgbatch.reconstruction.evaluation.truth import Array, Known

if TYPE_CHECKING:
    import pycolmap

AUC_THRESHOLDS = (0.5, 1.0, 3.0, 5.0, 10.0)
"""Thresholds of the relative-pose AUC, in degrees."""


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of a model. Known cameras are those with ground truth."""

    registered: int
    """Number of known cameras that the model registers."""
    known: int
    """Number of known cameras."""
    auc: dict[float, float]
    """Relative-pose AUC in percent over all pairs of known cameras, by threshold in degrees."""
    position_median: float | None
    """Position error, in units of the ground truth, after the similarity transform that best aligns the camera centres.
    This and the next five are None if the alignment is undetermined: fewer than 3 registered cameras, or collinear."""
    position_mean: float | None
    position_max: float | None
    rotation_median: float | None
    """Rotation error after the same alignment, in degrees."""
    rotation_mean: float | None
    rotation_max: float | None
    relative_rotation_median: float | None
    """Angle between true and estimated relative rotations over pairs of registered cameras, in degrees. It needs no
    alignment, which position errors can tilt. None without pairs."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {
            "registered_cameras": self.registered,
            "known_cameras": self.known,
            "relative_pose_auc": {f"{threshold:g}": value for threshold, value in self.auc.items()},
            "position_error_median": self.position_median,
            "position_error_mean": self.position_mean,
            "position_error_max": self.position_max,
            "rotation_error_deg_median": self.rotation_median,
            "rotation_error_deg_mean": self.rotation_mean,
            "rotation_error_deg_max": self.rotation_max,
            "relative_rotation_error_deg_median": self.relative_rotation_median,
        }


def evaluate(model: "Path | pycolmap.Reconstruction", truth: Mapping[str, Known]) -> Accuracy:
    """Compare a COLMAP model, or the model in a folder, with the known cameras `truth`, by image name.

    Ignores images without a known camera. Raises InputError if the folder contains no model, or if fewer than two
    cameras are known.
    """
    return compare(model_poses(read_model(model) if isinstance(model, Path) else model), truth)


def compare(poses: Mapping[str, Array], truth: Mapping[str, Known]) -> Accuracy:
    """Compare estimated poses with the known cameras `truth`, by image name.

    `poses` are (3, 4) camera_from_world matrices in any common world frame and scale. Raises InputError if fewer than
    two cameras are known.
    """
    if len(truth) < 2:
        raise InputError(f"accuracy is measured on pairs of cameras: at least two must be known, not {len(truth)}")
    true = np.stack([camera.camera_from_world for camera in truth.values()])
    missing = np.full((3, 4), np.nan)
    estimated = np.stack([poses.get(name, missing) for name in truth])
    errors = relative_pose_errors(estimated, true)
    registered = np.isfinite(estimated).all(axis=(1, 2))
    positions, rotations = aligned_errors(estimated[registered], true[registered])
    relative = relative_errors(estimated[registered], true[registered])[0]
    return Accuracy(
        registered=int(registered.sum()),
        known=len(truth),
        auc={threshold: pose_auc(errors, threshold) for threshold in AUC_THRESHOLDS},
        position_median=_quantile(positions, 0.5),
        position_mean=_mean(positions),
        position_max=_quantile(positions, 1),
        rotation_median=_quantile(rotations, 0.5),
        rotation_mean=_mean(rotations),
        rotation_max=_quantile(rotations, 1),
        relative_rotation_median=_quantile(relative, 0.5),
    )


def format_accuracy(accuracy: Mapping[str, Any]) -> str:
    """Format Accuracy.as_dict() as one line for the terminal."""
    text = f"accuracy    {accuracy['registered_cameras']} of {accuracy['known_cameras']} known cameras registered"
    if accuracy["position_error_median"] is None:
        return text
    for noun, key, unit in (
        ("rotation", "rotation_error_deg", " degrees"),
        ("position", "position_error", " in units of the known positions"),
    ):
        median, maximum = accuracy[f"{key}_median"], accuracy[f"{key}_max"]
        text += f"; {noun} error: median {median:.2g}, maximum {maximum:.2g}{unit}"
    return text


def _quantile(values: Array, q: float) -> float | None:
    """The `q` quantile, or None if there are no values."""
    return float(np.quantile(values, q)) if len(values) else None


def _mean(values: Array) -> float | None:
    return float(values.mean()) if len(values) else None
