"""What features are good for, where the geometry is known: repeatability under a homography, and two-view accuracy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from lgbatch.reconstruction.pose_errors import pose_auc, relative_pose_errors
from lgbatch.reconstruction.truth import KnownCamera
from lgbatch.types import ByteArray, FloatArray, IntArray, Pair

if TYPE_CHECKING:
    import pycolmap

Array = NDArray[np.float64]

NEAR = 3.0
"""Pixels within which a keypoint is found again, as in the evaluations on HPatches."""
MARGIN = 8
"""Pixels from the edge of the overlap in which keypoints do not count."""
INLIER = 1.0
"""Pixels from the epipolar line, of the photo as the extractor saw it, within which a match is right."""
AUC_DEGREES = 5.0


@dataclass(frozen=True)
class Accuracy:
    """Of the matches of pairs of photos with known cameras."""

    precision: float
    """Share of the matches that lie on their epipolar lines."""
    right: float
    """Matches of an average pair that do."""
    auc: float
    """Of relative poses found from two views, up to AUC_DEGREES, in percent."""


def warped(pixels: ByteArray, seed: int) -> tuple[ByteArray, Array]:
    """A photo as it would look, were it flat and seen from elsewhere, and the homography (3, 3) to there.

    Turned by up to 25 degrees, 0.8 to 1.25 times as large, and in perspective; where there was nothing, it is black.
    """
    rng = np.random.default_rng(seed)
    height, width = pixels.shape[:2]
    angle, scale = np.radians(rng.uniform(-25, 25)), np.exp(rng.uniform(np.log(0.8), np.log(1.25)))
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    to_centre = np.array([[1, 0, -(width - 1) / 2], [0, 1, -(height - 1) / 2], [0, 0, 1]])
    tilt = rng.uniform(-0.25, 0.25, 2) / max(width, height)
    turn = np.array([[c, -s, 0], [s, c, 0], [*tilt, 1]])
    homography: Array = np.linalg.inv(to_centre) @ turn @ to_centre
    elsewhere: ByteArray = cv2.warpPerspective(pixels, homography, (width, height), flags=cv2.INTER_AREA)  # type: ignore[assignment]
    return elsewhere, homography


def repeatability(first: FloatArray, second: FloatArray, homography: Array, size: tuple[int, int]) -> float:
    """Share of the keypoints (N, 2) of either image of a size, where both show the same, that the other has too."""
    there = _found_again(first, second, homography, size)
    back = _found_again(second, first, np.linalg.inv(homography).astype(np.float64), size)
    return (there + back) / 2


def _found_again(keypoints: FloatArray, others: FloatArray, homography: Array, size: tuple[int, int]) -> float:
    if not len(keypoints) or not len(others):
        return 0.0
    there = cv2.perspectiveTransform(keypoints[None].astype(np.float64), homography)[0]
    last = np.array(size) - 1 - MARGIN
    seen = ((keypoints >= MARGIN) & (keypoints <= last) & (there >= MARGIN) & (there <= last)).all(axis=1)
    nearest = np.array([np.linalg.norm(others - place, axis=1).min() for place in there[seen]])
    return float((nearest <= NEAR).mean()) if len(nearest) else 0.0


def two_view_accuracy(
    found: Mapping[Pair, IntArray],
    keypoints: Mapping[str, FloatArray],
    cameras: Mapping[str, KnownCamera],
    pixel: float,
) -> Accuracy:
    """Of matched rows (K, 2) of pairs, into keypoints in pixels of the originals.

    `pixel`: how many of these one pixel is of the photo as the extractor saw it. Lens distortion is not known of.
    """
    right = total = 0
    errors: list[float] = []
    for pair, rows in found.items():
        first, second = cameras[pair.a], cameras[pair.b]
        points = [keypoints[name][rows[:, side]].astype(np.float64) for side, name in enumerate(pair)]
        distance = _epipolar_distance(points[0], points[1], first, second)
        right, total = right + int((distance <= INLIER * pixel).sum()), total + len(rows)
        errors.append(_pose_error(points, first, second, pixel))
    return Accuracy(
        precision=right / max(1, total),
        right=right / max(1, len(found)),
        auc=pose_auc(np.array(errors), AUC_DEGREES),
    )


def _epipolar_distance(first: Array, second: Array, a: KnownCamera, b: KnownCamera) -> Array:
    """How far, in pixels, each point (N, 2) is from the epipolar line of its partner; of the two, the farther one."""
    relative = b.camera_from_world[:, :3] @ a.camera_from_world[:, :3].T
    x, y, z = b.camera_from_world[:, 3] - relative @ a.camera_from_world[:, 3]
    essential = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ relative
    fundamental = np.linalg.inv(b.calibration).T @ essential @ np.linalg.inv(a.calibration)
    rays = [np.column_stack([points, np.ones(len(points))]) for points in (first, second)]
    lines = rays[0] @ fundamental.T, rays[1] @ fundamental
    off = np.abs((rays[1] * lines[0]).sum(axis=1))
    distance: Array = np.maximum(*(off / np.linalg.norm(line[:, :2], axis=1) for line in lines))
    return distance


def _pose_error(points: list[Array], a: KnownCamera, b: KnownCamera, pixel: float) -> float:
    """Degrees of the relative pose that COLMAP estimates from matched points with the true calibrations."""
    import pycolmap

    options = pycolmap.RANSACOptions(max_error=INLIER * pixel, random_seed=0)
    estimate = pycolmap.estimate_essential_matrix(
        points[0] + 0.5, points[1] + 0.5, _colmap_camera(a), _colmap_camera(b), options
    )
    if estimate is None:
        return np.inf
    found = np.stack([np.eye(3, 4), np.asarray(estimate["cam2_from_cam1"].matrix())])
    return float(relative_pose_errors(found, np.stack([a.camera_from_world, b.camera_from_world]))[0])


def _colmap_camera(camera: KnownCamera) -> "pycolmap.Camera":
    import pycolmap

    k = camera.calibration
    parameters = [k[0, 0], k[1, 1], k[0, 2] + 0.5, k[1, 2] + 0.5]
    return pycolmap.Camera(model="PINHOLE", width=camera.size[0], height=camera.size[1], params=parameters)
