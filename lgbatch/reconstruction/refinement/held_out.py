"""Held-out observations: how well a model predicts measurements that did not take part in finding a point.

A tenth of the observations is held out, at most one of a point. Each point is triangulated anew from its other
observations, with the cameras as they are, and projected into the view of the one that was held out.
"""

import math
from typing import TYPE_CHECKING

import numpy as np

from lgbatch.reconstruction.refinement.tracks import Array, Tracks
from lgbatch.types import BoolArray, LongArray

if TYPE_CHECKING:
    import pycolmap

_PART = 0.1
_LEAST_VIEWS = 4
_ITERATIONS = 6
_LOSS_SCALE = 1.0  # pixels, of Cauchy's loss in triangulation
_CERTAIN = 3.0  # standard errors
_STEP = 1e-6  # of the distance to a point, for derivatives


def choose_held_out(tracks: Tracks) -> LongArray:
    """Return the rows of the observations to hold out, of points with at least four. The choice is always the same."""
    draw = np.random.default_rng(0).random(len(tracks.image))
    rows = np.flatnonzero((draw < _PART) & (tracks.lengths() >= _LEAST_VIEWS)[tracks.point])
    return rows[np.unique(tracks.point[rows], return_index=True)[1]]


def held_out_errors(
    model: "pycolmap.Reconstruction", tracks: Tracks, positions: Array, kept: BoolArray, held: LongArray
) -> Array:
    """Return the reprojection errors (H,) in pixels of the observations `held` (H,), at their `positions` (O, 2).

    `kept` (O,) are the observations that determine the points. The error is infinite where they do not.
    """
    part = tracks.of_points(np.isin(np.arange(len(tracks.points)), tracks.point[held]))
    rows = np.flatnonzero(np.isin(tracks.point, tracks.point[held]))
    row_in_part = np.searchsorted(rows, held)
    used = kept[rows].copy()
    used[row_in_part] = False
    xyz = _triangulate(model, part, positions[rows], used)
    errors: Array = np.linalg.norm(part.project(model, xyz[part.point]) - positions[rows], axis=1)[row_in_part]
    errors[(part.lengths(used) < 2)[part.point[row_in_part]] | ~np.isfinite(errors)] = np.inf
    return errors


def is_significant(before: Array, after: Array) -> bool:
    """Whether paired errors fall: the mean of their Cauchy loss by three of its standard errors.

    The scale of the loss is the median of `before`. Only pairs of finite errors count.
    """
    finite = np.isfinite(before) & np.isfinite(after)
    if not finite.any():
        return False
    before, after = before[finite], after[finite]
    scale = max(float(np.median(before)), 1e-6)
    gain = np.log1p((before / scale) ** 2) - np.log1p((after / scale) ** 2)
    return float(gain.mean()) > _CERTAIN * float(gain.std()) / math.sqrt(len(gain))


def _triangulate(model: "pycolmap.Reconstruction", tracks: Tracks, positions: Array, used: BoolArray) -> Array:
    """Refine the points (P, 3) by Gauss-Newton on the `used` observations (O,), with the cameras as they are."""
    xyz = tracks.xyz(model)
    centres = np.array([model.images[i].projection_center() for i in tracks.images.tolist()])
    for _ in range(_ITERATIONS):
        points = xyz[tracks.point]
        residual = tracks.project(model, points) - positions
        step = _STEP * np.linalg.norm(points - centres[tracks.image], axis=1)
        jacobian = np.stack(
            [
                (tracks.project(model, points + step[:, None] * axis) - positions - residual) / step[:, None]
                for axis in np.eye(3)
            ],
            axis=2,
        )
        weight = np.where(used, 1 / (1 + (residual**2).sum(axis=1) / _LOSS_SCALE**2), 0)
        valid = np.isfinite(jacobian).all(axis=(1, 2)) & np.isfinite(weight)
        weight[~valid], jacobian[~valid], residual[~valid] = 0, 0, 0
        normal = np.einsum("n,nki,nkj->nij", weight, jacobian, jacobian).reshape(-1, 9)
        right = np.einsum("n,nki,nk->ni", weight, jacobian, residual)
        normals, rights = (
            np.stack([np.bincount(tracks.point, column, len(xyz)) for column in values.T], axis=1)
            for values in (normal, right)
        )
        matrix = normals.reshape(-1, 3, 3)
        damping = 1e-9 * np.trace(matrix, axis1=1, axis2=2)[:, None, None] + 1e-12
        xyz = xyz - np.linalg.solve(matrix + damping * np.eye(3), rights[..., None])[..., 0]
    return xyz
