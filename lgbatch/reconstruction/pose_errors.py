"""How far a COLMAP model is from cameras that are known."""

from typing import TYPE_CHECKING

import numpy as np

from lgbatch.reconstruction.truth import Array

if TYPE_CHECKING:
    pass


def relative_pose_errors(found: Array, true: Array) -> Array:
    """Errors in degrees of all C (C - 1) / 2 pairs of cameras, from (C, 3, 4) camera_from_world each.

    The error of a pair is the larger of the angle between its relative rotations and the angle between its
    baselines; the latter only where the true cameras are not at one place. Poses of NaN make it infinite.
    """
    found_rotation, found_baseline = relative_poses(found)
    true_rotation, true_baseline = relative_poses(true)
    direction = _angle_between(found_baseline, true_baseline)
    direction[np.linalg.norm(true_baseline, axis=1) == 0] = 0
    errors = np.maximum(rotation_angle(found_rotation, true_rotation), direction)
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


def aligned_errors(found: Array, true: Array) -> tuple[Array, Array]:
    """Position and rotation errors of each camera after alignment; empty where that is undetermined."""
    found_centres, true_centres = _centres(found), _centres(true)
    fit = umeyama(found_centres, true_centres)
    if fit is None:
        return np.empty(0), np.empty(0)
    scale, rotation, translation = fit
    positions = np.linalg.norm(scale * found_centres @ rotation.T + translation - true_centres, axis=1)
    return positions, rotation_angle(found[:, :, :3] @ rotation.T, true[:, :, :3])


def quantile(values: Array, q: float) -> float | None:
    return float(np.quantile(values, q)) if len(values) else None


def _centres(camera_from_world: Array) -> Array:
    centres: Array = -np.einsum("nji,nj->ni", camera_from_world[:, :, :3], camera_from_world[:, :, 3])
    return centres


def relative_poses(camera_from_world: Array) -> tuple[Array, Array]:
    """Rotations (P, 3, 3) and translations (P, 3) second_from_first of all pairs."""
    first, second = np.triu_indices(len(camera_from_world), k=1)
    rotations, translations = camera_from_world[:, :, :3], camera_from_world[:, :, 3]
    relative = rotations[second] @ rotations[first].transpose(0, 2, 1)
    return relative, translations[second] - np.einsum("nij,nj->ni", relative, translations[first])


# Both angles through chords: arccos of a number next to 1 would lose half of the digits.
def rotation_angle(a: Array, b: Array) -> Array:
    chord = np.linalg.norm(a - b, axis=(1, 2)) / np.sqrt(8)
    angle: Array = np.degrees(2 * np.arcsin(np.minimum(chord, 1)))
    return angle


def _angle_between(a: Array, b: Array) -> Array:
    a, b = (v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-300) for v in (a, b))
    angle: Array = np.degrees(2 * np.arctan2(np.linalg.norm(a - b, axis=1), np.linalg.norm(a + b, axis=1)))
    return angle
