"""How far a COLMAP model is from cameras that are known."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lgbatch.errors import InputError

if TYPE_CHECKING:
    import pycolmap

Array = NDArray[np.float64]

AUC_THRESHOLDS = (0.5, 1.0, 5.0, 10.0)
"""Degrees."""


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


def read_strecha(folder: Path) -> dict[str, KnownCamera]:
    """Image name to camera, from the files NAME.camera of Strecha et al.'s benchmark (CVPR 2008).

    Such a file holds K (3 rows), a distortion row, the rotation world_from_camera (3 rows), the camera centre
    and the image size. Raises InputError when there is none, or one of them is something else.
    """
    files = sorted(folder.glob("*.camera"))
    if not files:
        raise InputError(f"no .camera files in {folder}: give the folder that holds NAME.camera for each image")
    return {path.name.removesuffix(".camera"): _read_camera(path) for path in files}


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
    positions, rotations = _aligned_errors(found[registered], true[registered])
    relative = _rotation_angle(_relative(found[registered])[0], _relative(true[registered])[0])
    return Accuracy(
        registered=int(registered.sum()),
        known=len(truth),
        auc={threshold: pose_auc(errors, threshold) for threshold in AUC_THRESHOLDS},
        position_median=_quantile(positions, 0.5),
        position_max=_quantile(positions, 1),
        rotation_median=_quantile(rotations, 0.5),
        rotation_max=_quantile(rotations, 1),
        relative_rotation_median=_quantile(relative, 0.5),
    )


def relative_pose_errors(found: Array, true: Array) -> Array:
    """Errors in degrees of all C (C - 1) / 2 pairs of cameras, from (C, 3, 4) camera_from_world each.

    The error of a pair is the larger of the angle between its relative rotations and the angle between its
    baselines; the latter only where the true cameras are not at one place. Poses of NaN make it infinite.
    """
    found_rotation, found_baseline = _relative(found)
    true_rotation, true_baseline = _relative(true)
    direction = _angle_between(found_baseline, true_baseline)
    direction[np.linalg.norm(true_baseline, axis=1) == 0] = 0
    errors = np.maximum(_rotation_angle(found_rotation, true_rotation), direction)
    return np.where(np.isnan(errors), np.inf, errors)


def pose_auc(errors: Array, threshold: float) -> float:
    """Area in percent under recall over error, from 0 to `threshold`, as SuperGlue's evaluation defines it.

    The curve starts at (0, 0), joins the sorted errors by straight lines, and is level from the last of them on.
    """
    below = np.sort(errors[errors < threshold])
    recall = np.arange(len(below) + 1) / max(len(errors), 1)
    x = np.concatenate([[0], below, [threshold]])
    y = np.append(recall, recall[-1])
    return float(100 / threshold * (np.diff(x) * (y[1:] + y[:-1]) / 2).sum())


def umeyama(source: Array, target: Array) -> tuple[float, Array, Array] | None:
    """Scale, rotation (3, 3) and translation (3,) of the least-squares similarity target_from_source.

    Both are (N, 3). None where they do not fix it: fewer than 3 points, or all on one line.
    Umeyama, Least-squares estimation of transformation parameters between two point patterns (PAMI 1991).
    """
    if len(source) < 3:
        return None
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    a, b = source - source_mean, target - target_mean
    u, spread, vt = np.linalg.svd(b.T @ a)
    if spread[1] <= 1e-9 * spread[0]:
        return None
    sign = np.array([1, 1, np.linalg.det(u @ vt)])
    rotation = (u * sign) @ vt
    scale = float((spread * sign).sum() / (a**2).sum())
    return scale, rotation, target_mean - scale * rotation @ source_mean


def _aligned_errors(found: Array, true: Array) -> tuple[Array, Array]:
    """Position and rotation errors of each camera after alignment; empty where that is undetermined."""
    found_centres, true_centres = _centres(found), _centres(true)
    fit = umeyama(found_centres, true_centres)
    if fit is None:
        return np.empty(0), np.empty(0)
    scale, rotation, translation = fit
    positions = np.linalg.norm(scale * found_centres @ rotation.T + translation - true_centres, axis=1)
    return positions, _rotation_angle(found[:, :, :3] @ rotation.T, true[:, :, :3])


def _quantile(values: Array, q: float) -> float | None:
    return float(np.quantile(values, q)) if len(values) else None


def _centres(camera_from_world: Array) -> Array:
    centres: Array = -np.einsum("nji,nj->ni", camera_from_world[:, :, :3], camera_from_world[:, :, 3])
    return centres


def _relative(camera_from_world: Array) -> tuple[Array, Array]:
    """Rotations (P, 3, 3) and translations (P, 3) second_from_first of all pairs."""
    first, second = np.triu_indices(len(camera_from_world), k=1)
    rotations, translations = camera_from_world[:, :, :3], camera_from_world[:, :, 3]
    relative = rotations[second] @ rotations[first].transpose(0, 2, 1)
    return relative, translations[second] - np.einsum("nij,nj->ni", relative, translations[first])


# Both angles through chords: arccos of a number next to 1 would lose half of the digits.
def _rotation_angle(a: Array, b: Array) -> Array:
    chord = np.linalg.norm(a - b, axis=(1, 2)) / np.sqrt(8)
    angle: Array = np.degrees(2 * np.arcsin(np.minimum(chord, 1)))
    return angle


def _angle_between(a: Array, b: Array) -> Array:
    a, b = (v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-300) for v in (a, b))
    angle: Array = np.degrees(2 * np.arctan2(np.linalg.norm(a - b, axis=1), np.linalg.norm(a + b, axis=1)))
    return angle


def _read_model(folder: Path) -> "pycolmap.Reconstruction":
    import pycolmap

    try:
        return pycolmap.Reconstruction(str(folder))
    except (OSError, ValueError, RuntimeError, IndexError, MemoryError):
        raise InputError(f"no COLMAP model in {folder}: give the folder with cameras.bin, such as sparse/0") from None


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
