"""Errors of camera poses: of relative poses, with their AUC, and after a similarity alignment."""

import numpy as np

from lgbatch.reconstruction.evaluation.truth import Array


def pose_auc(errors: Array, threshold: float) -> float:
    """Area in percent under the curve of recall over error up to `threshold`, as in SuperGlue's evaluation.

    The curve starts at (0, 0), is linear between the sorted errors, and constant from the last one to `threshold`.
    """
    below = np.sort(errors[errors < threshold])
    recall = np.arange(len(below) + 1) / max(len(errors), 1)
    x = np.concatenate([[0], below, [threshold]])
    y = np.append(recall, recall[-1])
    return float(100 / threshold * (np.diff(x) * (y[1:] + y[:-1]) / 2).sum())


def relative_pose_errors(estimated: Array, true: Array) -> Array:
    """Relative pose errors in degrees, (C (C - 1) / 2,), of all pairs of C cameras; (C, 3, 4) camera_from_world each.

    The error of a pair is the larger of two angles: between its relative rotations, and between its baselines. The
    baselines count only if the true ones are not zero. The error is infinite if a pose is NaN.
    """
    errors = np.maximum(*relative_errors(estimated, true))
    return np.where(np.isnan(errors), np.inf, errors)


def relative_errors(estimated: Array, true: Array) -> tuple[Array, Array]:
    """Angles in degrees, (C (C - 1) / 2,) each, between relative rotations and between baselines, NaN if a pose is."""
    pairs = [_errors_with_later(estimated[first:], true[first:]) for first in range(len(true) - 1)]
    rotations, directions = zip(*pairs, strict=True) if pairs else ((), ())
    return np.concatenate([np.empty(0), *rotations]), np.concatenate([np.empty(0), *directions])


def _errors_with_later(estimated: Array, true: Array) -> tuple[Array, Array]:
    """The angles of the pairs of the first camera with each other one. One row of pairs at a time saves memory."""
    rotation, baseline = _relative_poses(estimated)
    true_rotation, true_baseline = _relative_poses(true)
    direction = _angle_between(baseline, true_baseline)
    direction[np.linalg.norm(true_baseline, axis=1) == 0] = 0
    return _rotation_angle(rotation, true_rotation), direction


def _relative_poses(camera_from_world: Array) -> tuple[Array, Array]:
    """Relative poses other_from_first of the first camera and each other one: rotations and translations."""
    rotations, translations = camera_from_world[:, :, :3], camera_from_world[:, :, 3]
    relative = rotations[1:] @ rotations[0].T
    return relative, translations[1:] - relative @ translations[0]


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
    return positions, _rotation_angle(estimated[:, :, :3] @ rotation.T, true[:, :, :3])


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


def _centres(camera_from_world: Array) -> Array:
    """Camera centres in world coordinates, (C, 3)."""
    centres: Array = -np.einsum("nji,nj->ni", camera_from_world[:, :, :3], camera_from_world[:, :, 3])
    return centres


# Both angles are computed from chord lengths: arccos near 1 would lose half of the digits.
def _rotation_angle(a: Array, b: Array) -> Array:
    """Angles in degrees, (N,), between rotation matrices (N, 3, 3)."""
    chord = np.linalg.norm(a - b, axis=(1, 2)) / np.sqrt(8)
    angle: Array = np.degrees(2 * np.arcsin(np.minimum(chord, 1)))
    return angle


def _angle_between(a: Array, b: Array) -> Array:
    """Angles in degrees, (N,), between vectors (N, 3)."""
    a, b = (v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-300) for v in (a, b))
    angle: Array = np.degrees(2 * np.arctan2(np.linalg.norm(a - b, axis=1), np.linalg.norm(a + b, axis=1)))
    return angle
