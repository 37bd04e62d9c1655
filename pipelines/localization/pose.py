"""The pose of a photo, from its keypoints and the 3D points that they show."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lgbatch.types import LongArray

if TYPE_CHECKING:
    import pycolmap

Array = NDArray[np.float64]
_MAX_ERROR = 4.0
"""Pixels at the size of extraction."""
_MIN_INLIERS = 15
_MIN_PRODUCT = 12.0
"""Least product of the number of inliers and their part of the correspondences, as of verified pairs."""


@dataclass(frozen=True, eq=False)
class Correspondences:
    """K keypoints of a photo and the 3D points that matches say they show. A keypoint may have several."""

    keypoints: LongArray = field(default_factory=lambda: np.zeros(0, np.int64))
    """(K,) indices."""
    points: LongArray = field(default_factory=lambda: np.zeros(0, np.int64))
    """(K,) ids."""


@dataclass(frozen=True, eq=False)
class Estimate:
    """The outcome of one photo."""

    pose: Array | None
    """(3, 4) camera_from_world; None if there is too little evidence."""
    correspondences: int
    """Keypoints that may show a point."""
    inliers: dict[int, int]
    """3D point by keypoint."""
    reason: str = ""
    """Why there is no pose."""


def estimate_pose(
    model: "pycolmap.Reconstruction",
    camera: "pycolmap.Camera",
    keypoints: Array,
    found: Correspondences,
    scale: float,
    is_known: bool,
) -> Estimate:
    """Estimate a pose by LO-RANSAC and refinement; `keypoints` (N, 2) are in COLMAP's pixels.

    `scale` is the size of the photo divided by that of extraction. The intrinsics of a camera that is not known are
    refined in place, and its focal length is estimated if EXIF has none.
    """
    import pycolmap

    total = len(np.unique(found.keypoints))
    if total < _MIN_INLIERS:
        return Estimate(None, total, {}, f"{total} keypoints match points of the model, {_MIN_INLIERS} are needed")
    estimation = pycolmap.AbsolutePoseEstimationOptions()
    estimation.ransac.max_error, estimation.ransac.random_seed = _MAX_ERROR * max(1.0, scale), 0
    estimation.ransac.min_inlier_ratio = 0.02
    estimation.estimate_focal_length = not is_known and not camera.has_prior_focal_length
    refinement = pycolmap.AbsolutePoseRefinementOptions()
    refinement.refine_focal_length = refinement.refine_extra_params = not is_known
    xyz = np.array([model.point3D(point).xyz for point in found.points.tolist()])
    result = pycolmap.estimate_and_refine_absolute_pose(keypoints[found.keypoints], xyz, camera, estimation, refinement)
    mask = np.zeros(len(xyz), np.bool_) if result is None else np.asarray(result["inlier_mask"], np.bool_)
    inliers = dict(zip(found.keypoints[mask].tolist(), found.points[mask].tolist(), strict=True))
    if result is None or len(inliers) < _MIN_INLIERS or len(inliers) ** 2 < _MIN_PRODUCT * total:
        reason = f"{len(inliers)} of {total} keypoints that match points agree on a pose: too few"
        return Estimate(None, total, inliers, reason)
    return Estimate(np.asarray(result["cam_from_world"].matrix()), total, inliers)
