"""Bundle adjustment by COLMAP with a robust loss, and a choice of the intrinsics that it refines."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pycolmap

from lgbatch.reconstruction.bundle_adjustment import adjustment_of
from lgbatch.reconstruction.refinement.tracks import Array

LOSS_SCALE = 0.5
"""Pixels. Cauchy's loss grows slowly beyond this error."""
_TOLERANCE = 1e-4  # of the cost; 1e-6 takes 2.5 times as long, for the same accuracy
_DAMPING = 1e-8
_MOST_ERROR, _LEAST_ANGLE = 4.0, 1.5
"""Pixels and degrees, as in COLMAP's mapper (filter_max_reproj_error, filter_min_tri_angle)."""


@dataclass(frozen=True)
class Freedom:
    """The intrinsics that are refined."""

    fixed: frozenset[int] = frozenset()
    """Cameras that keep all of their intrinsics. The others have their focal length and distortion refined."""
    principal: frozenset[int] = frozenset()
    """Cameras that have their principal point refined, too."""


def adjust(model: pycolmap.Reconstruction, freedom: Freedom, loss_scale: float, threads: int) -> None:
    """Adjust poses, points and intrinsics of a model in place. `threads` 0 uses all cores."""
    free = set(model.cameras) - freedom.fixed
    if not free or not free.issubset(freedom.principal):
        _solve(model, freedom.fixed, False, loss_scale, threads)
    if free & freedom.principal:  # COLMAP frees principal points of all cameras, or of none: the others wait
        _solve(model, set(model.cameras) - (free & freedom.principal), True, loss_scale, threads)
    model.update_point_3d_errors()


def filter_points(model: pycolmap.Reconstruction) -> None:
    """Remove the observations and points that do not pass the mapper's own filter after an adjustment.

    For instance, two keypoints of one image may be all that is left of a track.
    """
    pycolmap.ObservationManager(model).filter_all_points3D(_MOST_ERROR, _LEAST_ANGLE)
    model.update_point_3d_errors()


def principal_point_deviations(
    model: pycolmap.Reconstruction, freedom: Freedom, loss_scale: float, threads: int
) -> dict[int, Array]:
    """Return the standard deviations (2,) in pixels of the principal points that `freedom` refines, by camera.

    By the covariance of the bundle adjustment, at the minimum and for observations with a deviation of 1 pixel. Empty
    if the observations do not determine the unknowns, and for rigs, whose covariance COLMAP does not estimate.
    """
    if not all(model.images[i].is_ref_in_frame() for i in model.reg_image_ids()):
        return {}
    chosen = freedom.principal - freedom.fixed
    adjuster = _adjuster(model, set(model.cameras) - chosen, True, loss_scale, threads)
    options = pycolmap.BACovarianceOptions(params=pycolmap.BACovarianceOptionsParams.ALL, damping=_DAMPING)
    covariance = pycolmap.estimate_ba_covariance(options, model, adjuster)
    if covariance is None:
        return {}
    found = {i: covariance.get_other_params_cov(model.cameras[i].params) for i in sorted(chosen)}
    return {
        i: np.sqrt(np.diagonal(matrix)[list(model.cameras[i].principal_point_idxs())])
        for i, matrix in found.items()
        if matrix is not None
    }


def _solve(
    model: pycolmap.Reconstruction, fixed: Collection[int], principal: bool, loss_scale: float, threads: int
) -> None:
    _adjuster(model, fixed, principal, loss_scale, threads).solve()


def _adjuster(
    model: pycolmap.Reconstruction, fixed: Iterable[int], principal: bool, loss_scale: float, threads: int
) -> Any:
    options = pycolmap.BundleAdjustmentOptions(print_summary=False, refine_principal_point=principal)
    options.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    options.ceres.loss_function_scale = loss_scale
    options.ceres.solver_options.function_tolerance = _TOLERANCE
    options.ceres.solver_options.num_threads = threads or -1
    return pycolmap.create_default_ceres_bundle_adjuster(options, adjustment_of(model, fixed), model)
