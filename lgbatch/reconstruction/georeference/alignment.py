"""The similarity transform that takes a model to known positions, and how much evidence it rests on."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lgbatch.errors import ReconstructionError
from lgbatch.reconstruction.evaluation.pose_errors import umeyama

Array = NDArray[np.float64]
_ON_A_LINE = 1e-3
"""Deviation of points from a line, as a part of their extent, up to which they do not tell the turn about it."""
_OUTLIER = 3.0
"""Accuracies between an outlier and its position."""
_DEFORMATION = 0.02
"""Part of the extent by which a model may be bent: no point within it is an outlier."""
_WEAK = 5.0
"""Accuracies by which positions must deviate from a line to tell scale and orientation to within about 20 percent."""


@dataclass(frozen=True, eq=False)
class Alignment:
    """The transform of N points of a model to their known positions, in metres."""

    scale: float
    """Metres per unit of the model."""
    rotation: Array
    """(3, 3)."""
    translation: Array
    """(3,)."""
    residuals: Array
    """(N, 3), known position minus that of the model."""
    inliers: NDArray[np.bool_]
    """(N,), the points that the transform rests on."""
    extent: float
    """Root-mean-square distance of the inliers from their centre."""
    width: float
    """Root-mean-square distance of the inliers from the line that fits them best."""
    weak: str
    """Why scale and orientation are uncertain; empty if they are not."""

    @property
    def matrix(self) -> Array:
        """The transform (4, 4) from the model to the frame."""
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = self.scale * self.rotation, self.translation
        return matrix

    @property
    def distances(self) -> Array:
        """Lengths of the residuals, (N,)."""
        return np.asarray(np.linalg.norm(self.residuals, axis=1), np.float64)


def align(source: Array, target: Array, accuracy: float, what: str) -> Alignment:
    """Find the similarity transform of points of a model, (N, 3), to known positions, (N, 3), by LO-RANSAC.

    The transform is the least-squares one of the points that agree. Outliers are off by more than 3 times the
    `accuracy`, the standard deviation of the positions in metres, and by more than 2 percent of their extent. `what`
    names the points in messages. Raises ReconstructionError if they do not determine the transform: fewer than 3, all
    in one place, or on a line.
    """
    _check(source, target, what)
    threshold = max(_OUTLIER * accuracy, _DEFORMATION * _spread(target)[0])
    inliers = _consensus(source, target, threshold)
    if inliers is None or inliers.sum() < 3:
        raise ReconstructionError(
            f"the {what} contradict the model: no 3 of them agree with it to within {threshold:.3g} m (--accuracy)"
        )
    _check(source[inliers], target[inliers], what)
    similarity = umeyama(source[inliers], target[inliers])
    if similarity is None:
        raise ReconstructionError(f"the {len(source)} {what} do not determine a transform")
    scale, rotation, translation = similarity
    residuals = target - (scale * source @ rotation.T + translation)
    extent, width = _spread(target[inliers])
    width = min(width, scale * _spread(source[inliers])[1])
    weak = _weakness(inliers, width, accuracy, what)
    return Alignment(scale, rotation, translation, residuals, inliers, extent, width, weak)


def _check(source: Array, target: Array, what: str) -> None:
    if len(source) < 3:
        raise ReconstructionError(f"{len(source)} {what}: at least 3 that are not on a line are needed")
    for points in target, source:
        extent, width = _spread(points)
        if extent <= 1e-9 * max(1.0, float(np.abs(points).max())):
            raise ReconstructionError(f"the {len(source)} {what} are all in one place: they tell no scale")
        if width <= _ON_A_LINE * extent:
            raise ReconstructionError(f"the {len(source)} {what} are on a line: they do not tell the turn about it")


def _spread(points: Array) -> tuple[float, float]:
    """Root-mean-square distances from the centre, and from the line that fits best."""
    values = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    return tuple(float(np.sqrt((part**2).sum() / len(points))) for part in (values, values[1:]))  # type: ignore[return-value]


def _weakness(inliers: NDArray[np.bool_], width: float, accuracy: float, what: str) -> str:
    if width < _WEAK * accuracy:
        return (
            f"the {what} deviate from a line by {width:.2g} m and are accurate to {accuracy:g} m: scale and "
            "orientation are uncertain"
        )
    if 2 * inliers.sum() < len(inliers):
        return f"{len(inliers) - inliers.sum()} of {len(inliers)} {what} contradict the others and the model"
    return ""


def _consensus(source: Array, target: Array, threshold: float) -> NDArray[np.bool_] | None:
    """Which points, (N,), a transform takes to their positions to within `threshold`; None if there is no transform."""
    import pycolmap

    options = pycolmap.RANSACOptions(max_error=threshold, random_seed=0)
    found: Any = pycolmap.estimate_sim3d_robust(_off_origin(source), _off_origin(target), options)
    return None if found is None else np.asarray(found["inlier_mask"], np.bool_)


def _off_origin(points: Array) -> Array:
    """Move points so that no plane through them contains the origin: COLMAP takes such ones for degenerate."""
    centred = points - points.mean(axis=0)
    normal = np.linalg.svd(centred)[2][2]
    return np.asarray(centred + _spread(points)[0] * normal, np.float64)
