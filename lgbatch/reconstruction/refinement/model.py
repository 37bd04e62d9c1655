"""Refinement of one model: align, adjust, choose intrinsics, and keep the result only if it is better."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pycolmap

from lgbatch.reconstruction.refinement.adjust import LOSS_SCALE, filter_points
from lgbatch.reconstruction.refinement.align import Aligner
from lgbatch.reconstruction.refinement.cameras import (
    Adjuster,
    Intrinsics,
    Solved,
    free_principal_points,
    initial_freedom,
    raise_models,
)
from lgbatch.reconstruction.refinement.held_out import choose_held_out, held_out_errors, is_significant
from lgbatch.reconstruction.refinement.photos import GreyPhotos
from lgbatch.reconstruction.refinement.tracks import Array, Tracks
from lgbatch.types import BoolArray, LongArray

Figures = dict[str, Any]

_LEAST_HELD_OUT = 30
"""Observations to hold out, without which there is no evidence, and a model stays as it is."""
_SMALLER = 2 / 3
"""Factor by which the median and the upper quartile of the errors must fall, of held-out observations that are aligned.
Those of a point share the errors of its reference view, which held-out errors do not show."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a model is refined."""

    fixed: bool
    """No intrinsics are refined."""
    intrinsics: Intrinsics
    threads: int
    adjust_threads: int
    """Threads of bundle adjustment; 0: all cores."""


@dataclass(frozen=True)
class Outcome:
    """A refined model, or the original one if none is better."""

    model: pycolmap.Reconstruction
    figures: Figures
    """The fields of results.RefinedModel."""


def refine_model(model: pycolmap.Reconstruction, photos: GreyPhotos, options: Options) -> Outcome:
    """Refine a model, which is not changed."""
    tracks = Tracks.of(model)
    held, positions, every = choose_held_out(tracks), tracks.positions(model), np.ones(len(tracks.image), bool)
    figures: Figures = {"observations": len(every), "error_before": model.compute_mean_reprojection_error()}
    if len(held) < _LEAST_HELD_OUT:
        return Outcome(model, figures | {"reason": "too few points are seen in four images"})
    before = held_out_errors(model, tracks, positions, every, held)
    figures["held_out_before"] = float(np.median(before))
    aligner = Aligner(model, tracks, photos, options.threads)
    solved = _align(model, aligner, tracks, held, options)
    now = aligner.observations
    if _are_smaller(before, solved.errors, now.aligned[held]):
        moved = np.linalg.norm(now.positions - positions, axis=1)
        figures |= {
            "change": "aligned",
            "aligned": int(now.aligned.sum()),
            "kept": int(now.kept(tracks).sum()),
            "moved": float(np.median(moved[moved > 0])) if moved.any() else 0.0,
        }
        return _outcome(solved, figures)
    adjuster = Adjuster(
        lambda adjusted: held_out_errors(adjusted, tracks, positions, every, held),
        max(LOSS_SCALE, float(np.median(before))),
        options.adjust_threads,
    )
    solved = _adjust_cameras(model, adjuster, options)
    if solved.freedom.principal and is_significant(before, solved.errors):
        return _outcome(solved, figures | {"change": "cameras"})
    return Outcome(model, figures | {"reason": "no change predicts held-out observations better"})


def _align(
    model: pycolmap.Reconstruction, aligner: Aligner, tracks: Tracks, held: LongArray, options: Options
) -> Solved:
    """Align the observations, adjust, align the others from the adjusted model, and adjust again."""
    now = aligner.observations
    adjuster = Adjuster(
        lambda adjusted: held_out_errors(adjusted, tracks, now.positions, now.kept(tracks), held),
        LOSS_SCALE,
        options.adjust_threads,
    )
    aligner.align(model)
    working = pycolmap.Reconstruction(model)
    tracks.apply(working, now.positions, now.kept(tracks))
    first = adjuster.solve(working, initial_freedom(model, options.fixed, options.intrinsics)).model
    aligner.align(first, projected=True)
    tracks.apply(first, now.positions, now.kept(tracks))
    second = _adjust_cameras(first, adjuster, options)
    return raise_models(second, adjuster) if options.intrinsics == "auto" else second


def _adjust_cameras(model: pycolmap.Reconstruction, adjuster: Adjuster, options: Options) -> Solved:
    solved = adjuster.solve(model, initial_freedom(model, options.fixed, options.intrinsics))
    return free_principal_points(solved, adjuster) if options.intrinsics == "auto" else solved


def _are_smaller(before: Array, after: Array, aligned: BoolArray) -> bool:
    """Whether held-out errors (H,) fell: significantly, and enough where observations are `aligned`, (H,)."""
    compared = aligned & np.isfinite(before) & np.isfinite(after)
    if not compared.any() or not is_significant(before, after):
        return False
    quartiles = [np.quantile(errors[compared], (0.5, 0.75)) for errors in (before, after)]
    return bool((quartiles[1] <= _SMALLER * quartiles[0]).all())


def _outcome(solved: Solved, figures: Figures) -> Outcome:
    """The outcome of a refined model, with the intrinsics of its cameras."""
    filter_points(solved.model)
    return Outcome(
        solved.model,
        figures
        | {
            "error_after": solved.model.compute_mean_reprojection_error(),
            "held_out_after": float(np.median(solved.errors)),
            "principal_points": len(solved.freedom.principal - solved.freedom.fixed),
            "higher_models": solved.raised,
        },
    )
