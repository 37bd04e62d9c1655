"""Which intrinsics to refine: the evidence is the held-out error, and the covariance of the bundle adjustment."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pycolmap

from lgbatch.colmap.sensors.simplify import has_simple_model, is_plausible
from lgbatch.reconstruction.refinement.adjust import Freedom, adjust, principal_point_deviations
from lgbatch.reconstruction.refinement.held_out import is_significant
from lgbatch.reconstruction.refinement.tracks import Array

Intrinsics = Literal["auto", "focal", "all", "none"]
Errors = Callable[[pycolmap.Reconstruction], Array]
"""Returns the held-out errors of a model."""
_LEAST_IMAGES = 5
"""Images of a camera from which its principal point and a higher camera model can be refined."""
_LARGEST_DEVIATION = 0.0025  # of the principal point, as part of the image's long side


@dataclass(frozen=True)
class Solved:
    """An adjusted model."""

    model: pycolmap.Reconstruction
    freedom: Freedom
    errors: Array
    """Its held-out errors, (H,)."""
    raised: int = 0
    """Cameras that have a higher camera model than before."""


@dataclass(frozen=True)
class Adjuster:
    """Adjusts models and tells which of two predicts held-out observations better."""

    errors: Errors
    loss_scale: float
    threads: int

    def solve(self, model: pycolmap.Reconstruction, freedom: Freedom) -> Solved:
        """Return an adjusted copy of a model. Cameras that become implausible keep their intrinsics."""
        while True:
            adjusted = pycolmap.Reconstruction(model)
            adjust(adjusted, freedom, self.loss_scale, self.threads)
            bogus = {i for i, c in adjusted.cameras.items() if i not in freedom.fixed and not is_plausible(c)}
            if not bogus:
                return Solved(adjusted, freedom, self.errors(adjusted))
            freedom = replace(freedom, fixed=freedom.fixed | bogus)

    def better(self, first: Solved, second: Solved) -> Solved:
        """Return the second model if it predicts significantly better, otherwise the first one."""
        return second if is_significant(first.errors, second.errors) else first


def initial_freedom(model: pycolmap.Reconstruction, fixed: bool, intrinsics: Intrinsics) -> Freedom:
    """Return the intrinsics that are refined without evidence: those that mapping refines, or none."""
    if fixed or intrinsics == "none":
        return Freedom(frozenset(model.cameras))
    images = _images(model)
    few = {i for i, c in model.cameras.items() if has_simple_model(c) and images[i] < _LEAST_IMAGES}
    principal = _shared(model) if intrinsics == "all" else frozenset()
    return Freedom(frozenset(few), frozenset(principal))


def free_principal_points(solved: Solved, adjuster: Adjuster) -> Solved:
    """Refine the principal points of the cameras that enough images share, if this is well determined and better."""
    shared = frozenset(_shared(solved.model) - solved.freedom.fixed)
    if not shared:
        return solved
    freedom = replace(solved.freedom, principal=shared)
    error = float(np.median(solved.errors))
    deviations = principal_point_deviations(solved.model, freedom, adjuster.loss_scale, adjuster.threads)
    sides = {i: max(c.width, c.height) for i, c in solved.model.cameras.items()}
    certain = {i for i, d in deviations.items() if d.max() * error < _LARGEST_DEVIATION * sides[i]}
    if not certain:
        return solved
    return adjuster.better(solved, adjuster.solve(solved.model, replace(freedom, principal=frozenset(certain))))


def raise_models(solved: Solved, adjuster: Adjuster) -> Solved:
    """Give the SIMPLE_RADIAL cameras that enough images share a second radial coefficient, if this is better."""
    images, raised = _images(solved.model), pycolmap.Reconstruction(solved.model)
    chosen = [
        camera
        for i, camera in raised.cameras.items()
        if camera.model_name == "SIMPLE_RADIAL" and images[i] >= _LEAST_IMAGES and i not in solved.freedom.fixed
    ]
    for camera in chosen:
        params = camera.params.tolist()
        camera.model = pycolmap.CameraModelId.RADIAL
        camera.params = [*params, 0.0]
    if not chosen:
        return solved
    return adjuster.better(solved, replace(adjuster.solve(raised, solved.freedom), raised=len(chosen)))


def _shared(model: pycolmap.Reconstruction) -> frozenset[int]:
    images = _images(model)
    return frozenset(i for i in model.cameras if images[i] >= _LEAST_IMAGES)


def _images(model: pycolmap.Reconstruction) -> Counter[int]:
    return Counter(model.images[i].camera_id for i in model.reg_image_ids())
