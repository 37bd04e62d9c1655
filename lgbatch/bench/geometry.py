"""Quality of features with known geometry: repeatability under a homography, and two-view accuracy."""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lgbatch.errors import InputError
from lgbatch.reconstruction.evaluation.formats.strecha import read_strecha
from lgbatch.reconstruction.evaluation.pose_errors import pose_auc, relative_pose_errors
from lgbatch.reconstruction.evaluation.truth import KnownCamera
from lgbatch.types import ByteArray, FloatArray, IntArray, Pair

Array = NDArray[np.float64]

NEAR = 3.0
"""Pixels. A keypoint is repeated if the other image has one within this distance, as in evaluations on HPatches."""
MARGIN = 8
"""Pixels. Keypoints closer to the edge of the overlap are ignored."""
INLIER = 1.0
"""Pixels of the resized photo. A match is correct if both points are within this distance of their epipolar line."""
AUC_DEGREES = 5.0


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of the matches of photos with known cameras."""

    precision: float
    """Fraction of the matches that are correct, within INLIER of their epipolar lines."""
    correct: float
    """Correct matches of an average pair."""
    auc: float
    """Area under the recall curve of two-view relative poses, up to AUC_DEGREES, in percent."""


def known_cameras(truth: Path, names: Set[str]) -> dict[str, KnownCamera]:
    """Read the cameras of these photos from a folder, as read_strecha. Raises InputError if fewer than two."""
    cameras = {name: camera for name, camera in read_strecha(truth).items() if name in names}
    if len(cameras) < 2:
        raise InputError(f"{truth} has the cameras of {len(cameras)} of the photos: at least two are needed")
    return cameras


def warp_photo(pixels: ByteArray, seed: int) -> tuple[ByteArray, Array]:
    """Warp a photo by a random homography. Returns the warped photo and the homography (3, 3) to it.

    The homography rotates by up to 25 degrees, scales by 0.8 to 1.25, and tilts. Pixels without source are black.
    """
    rng = np.random.default_rng(seed)
    height, width = pixels.shape[:2]
    angle, scale = np.radians(rng.uniform(-25, 25)), np.exp(rng.uniform(np.log(0.8), np.log(1.25)))
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    to_centre = np.array([[1, 0, -(width - 1) / 2], [0, 1, -(height - 1) / 2], [0, 0, 1]])
    tilt = rng.uniform(-0.25, 0.25, 2) / max(width, height)
    motion = np.array([[c, -s, 0], [s, c, 0], [*tilt, 1]])
    homography: Array = np.linalg.inv(to_centre) @ motion @ to_centre
    warped: ByteArray = cv2.warpPerspective(pixels, homography, (width, height), flags=cv2.INTER_AREA)  # type: ignore[assignment]
    return warped, homography


def repeatability(first: FloatArray, second: FloatArray, homography: Array, size: tuple[int, int]) -> float:
    """Return the fraction of keypoints (N, 2) in the overlap of two images that the other image has within NEAR pixels.

    `homography` (3, 3) maps the first image to the second, `size` is the (width, height) of both. The result is the
    mean of both directions.
    """
    forward = _repeated(first, second, homography, size)
    backward = _repeated(second, first, np.linalg.inv(homography).astype(np.float64), size)
    return (forward + backward) / 2


def _repeated(keypoints: FloatArray, others: FloatArray, homography: Array, size: tuple[int, int]) -> float:
    """Fraction of the keypoints in the overlap that have one of the others within NEAR pixels."""
    if not len(keypoints) or not len(others):
        return 0.0
    projected = cv2.perspectiveTransform(keypoints[None].astype(np.float64), homography)[0]
    last = np.array(size) - 1 - MARGIN
    overlap = ((keypoints >= MARGIN) & (keypoints <= last) & (projected >= MARGIN) & (projected <= last)).all(axis=1)
    distances = np.array([np.linalg.norm(others - point, axis=1).min() for point in projected[overlap]])
    return float((distances <= NEAR).mean()) if len(distances) else 0.0


def two_view_accuracy(
    matches: Mapping[Pair, IntArray],
    keypoints: Mapping[str, FloatArray],
    cameras: Mapping[str, KnownCamera],
    pixel: float,
) -> Accuracy:
    """Evaluate the matches of pairs of photos with known cameras.

    `matches` has rows (K, 2) into the keypoints (N, 2), which are in pixels of the original photos. `pixel` is the size
    of a pixel of the resized photo in pixels of the original. Lens distortion is ignored.
    """
    correct = total = 0
    errors: list[float] = []
    for pair, rows in matches.items():
        first, second = cameras[pair.a], cameras[pair.b]
        points = [keypoints[name][rows[:, side]].astype(np.float64) for side, name in enumerate(pair)]
        distance = _epipolar_distance(points[0], points[1], first, second)
        correct, total = correct + int((distance <= INLIER * pixel).sum()), total + len(rows)
        errors.append(_pose_error(points, first, second, pixel))
    return Accuracy(
        precision=correct / max(1, total),
        correct=correct / max(1, len(matches)),
        auc=pose_auc(np.array(errors), AUC_DEGREES),
    )


def _epipolar_distance(first: Array, second: Array, a: KnownCamera, b: KnownCamera) -> Array:
    """Return the distance (N,) of each match to its epipolar lines in pixels, the larger of both images."""
    relative = b.camera_from_world[:, :3] @ a.camera_from_world[:, :3].T
    x, y, z = b.camera_from_world[:, 3] - relative @ a.camera_from_world[:, 3]
    essential = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ relative
    fundamental = np.linalg.inv(b.calibration).T @ essential @ np.linalg.inv(a.calibration)
    rays = [np.column_stack([points, np.ones(len(points))]) for points in (first, second)]
    lines = rays[0] @ fundamental.T, rays[1] @ fundamental
    residual = np.abs((rays[1] * lines[0]).sum(axis=1))
    distance: Array = np.maximum(*(residual / np.linalg.norm(line[:, :2], axis=1) for line in lines))
    return distance


def _pose_error(points: list[Array], a: KnownCamera, b: KnownCamera, pixel: float) -> float:
    """Return the error in degrees of the relative pose that COLMAP estimates from the matches and true calibrations."""
    import pycolmap

    options = pycolmap.RANSACOptions(max_error=INLIER * pixel, random_seed=0)
    estimate = pycolmap.estimate_essential_matrix(
        points[0] + 0.5, points[1] + 0.5, a.intrinsics.at("", a.size), b.intrinsics.at("", b.size), options
    )
    if estimate is None:
        return np.inf
    poses = np.stack([np.eye(3, 4), np.asarray(estimate["cam2_from_cam1"].matrix())])
    return float(relative_pose_errors(poses, np.stack([a.camera_from_world, b.camera_from_world]))[0])
