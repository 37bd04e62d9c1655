"""Evaluate a COLMAP model against ground-truth cameras: relative-pose AUC, and position and rotation errors."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lgbatch.errors import InputError
from lgbatch.reconstruction.truth import Array, KnownCamera

if TYPE_CHECKING:
    import pycolmap

AUC_THRESHOLDS = (0.5, 1.0, 5.0, 10.0)
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
    This and the next three are None if the alignment is undetermined: fewer than 3 registered cameras, or collinear."""
    position_max: float | None
    rotation_median: float | None
    """Rotation error after the same alignment, in degrees."""
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
            "position_error_max": self.position_max,
            "rotation_error_deg_median": self.rotation_median,
            "rotation_error_deg_max": self.rotation_max,
            "relative_rotation_error_deg_median": self.relative_rotation_median,
        }


def evaluate(model: "Path | pycolmap.Reconstruction", truth: Mapping[str, KnownCamera]) -> Accuracy:
    """Compare a COLMAP model, or the model in a folder, with the known cameras `truth`, by image name.

    Ignores images without a known camera. Raises InputError if the folder contains no model, or if fewer than two
    cameras are known.
    """
    reconstruction = _read_model(model) if isinstance(model, Path) else model
    poses = {
        image.name: np.asarray(image.cam_from_world().matrix())
        for image in reconstruction.images.values()
        if image.has_pose
    }
    return compare(poses, truth)


def compare(poses: Mapping[str, Array], truth: Mapping[str, KnownCamera]) -> Accuracy:
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
    relative = rotation_angle(relative_poses(estimated[registered])[0], relative_poses(true[registered])[0])
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


def relative_pose_errors(estimated: Array, true: Array) -> Array:
    """Relative pose errors in degrees, (C (C - 1) / 2,), of all pairs of C cameras; (C, 3, 4) camera_from_world each.

    The error of a pair is the larger of two angles: between its relative rotations, and between its baselines. The
    baselines count only if the true ones are not zero. The error is infinite if a pose is NaN.
    """
    rotation, baseline = relative_poses(estimated)
    true_rotation, true_baseline = relative_poses(true)
    direction = _angle_between(baseline, true_baseline)
    direction[np.linalg.norm(true_baseline, axis=1) == 0] = 0
    errors = np.maximum(rotation_angle(rotation, true_rotation), direction)
    return np.where(np.isnan(errors), np.inf, errors)


def pose_auc(errors: Array, threshold: float) -> float:
    """Area in percent under the curve of recall over error up to `threshold`, as in SuperGlue's evaluation.

    The curve starts at (0, 0), is linear between the sorted errors, and constant from the last one to `threshold`.
    """
    below = np.sort(errors[errors < threshold])
    recall = np.arange(len(below) + 1) / max(len(errors), 1)
    x = np.concatenate([[0], below, [threshold]])
    y = np.append(recall, recall[-1])
    return float(100 / threshold * (np.diff(x) * (y[1:] + y[:-1]) / 2).sum())


def umeyama(source: Array, target: Array) -> tuple[float, Array, Array] | None:
    """Least-squares similarity transform target_from_source: scale, rotation (3, 3) and translation (3,).

    `source` and `target` are corresponding points, (N, 3) each. Returns None if they do not determine it: fewer than 3
    points, or collinear.

    Umeyama, Least-squares estimation of transformation parameters between two point patterns (PAMI 1991).
    """
    if len(source) < 3:
        return None
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    a, b = source - source_mean, target - target_mean
    u, singular_values, vt = np.linalg.svd(b.T @ a)
    if singular_values[1] <= 1e-9 * singular_values[0]:
        return None
    sign = np.array([1, 1, np.linalg.det(u @ vt)])
    rotation = (u * sign) @ vt
    scale = float((singular_values * sign).sum() / (a**2).sum())
    return scale, rotation, target_mean - scale * rotation @ source_mean


def aligned_errors(estimated: Array, true: Array) -> tuple[Array, Array]:
    """Position errors and rotation errors in degrees, (C,) each, after aligning the camera centres by a similarity.

    Takes (C, 3, 4) camera_from_world each. Both results are empty if the alignment is undetermined.
    """
    centres, true_centres = _centres(estimated), _centres(true)
    similarity = umeyama(centres, true_centres)
    if similarity is None:
        return np.empty(0), np.empty(0)
    scale, rotation, translation = similarity
    positions = np.linalg.norm(scale * centres @ rotation.T + translation - true_centres, axis=1)
    return positions, rotation_angle(estimated[:, :, :3] @ rotation.T, true[:, :, :3])


def quantile(values: Array, q: float) -> float | None:
    """The `q` quantile, or None if there are no values."""
    return float(np.quantile(values, q)) if len(values) else None


def _centres(camera_from_world: Array) -> Array:
    """Camera centres in world coordinates, (C, 3)."""
    centres: Array = -np.einsum("nji,nj->ni", camera_from_world[:, :, :3], camera_from_world[:, :, 3])
    return centres


def relative_poses(camera_from_world: Array) -> tuple[Array, Array]:
    """Relative poses second_from_first of all P pairs of cameras: rotations (P, 3, 3) and translations (P, 3)."""
    first, second = np.triu_indices(len(camera_from_world), k=1)
    rotations, translations = camera_from_world[:, :, :3], camera_from_world[:, :, 3]
    relative = rotations[second] @ rotations[first].transpose(0, 2, 1)
    return relative, translations[second] - np.einsum("nij,nj->ni", relative, translations[first])


# Both angles are computed from chord lengths: arccos near 1 would lose half of the digits.
def rotation_angle(a: Array, b: Array) -> Array:
    """Angles in degrees, (N,), between rotation matrices (N, 3, 3)."""
    chord = np.linalg.norm(a - b, axis=(1, 2)) / np.sqrt(8)
    angle: Array = np.degrees(2 * np.arcsin(np.minimum(chord, 1)))
    return angle


def _angle_between(a: Array, b: Array) -> Array:
    """Angles in degrees, (N,), between vectors (N, 3)."""
    a, b = (v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-300) for v in (a, b))
    angle: Array = np.degrees(2 * np.arctan2(np.linalg.norm(a - b, axis=1), np.linalg.norm(a + b, axis=1)))
    return angle
