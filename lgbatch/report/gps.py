"""How well the largest model agrees with the GPS positions of its photos."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lgbatch.pairing.spatial import local_metres
from lgbatch.reconstruction.evaluation.pose_errors import umeyama
from lgbatch.report.contents import Contents
from lgbatch.report.models import ModelView
from lgbatch.report.photos import PhotoRow

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class GpsFit:
    """G photos of the largest model with a GPS position. Metres, east, north and up."""

    photos: list[int]
    """(G,) rows."""
    measured: Array
    """(G, 3) GPS positions, from the first one."""
    cameras: Array
    """(G, 3) the cameras, aligned to these by a similarity."""
    has_altitude: bool

    @property
    def horizontal(self) -> Array:
        """Distances east and north, (G,)."""
        distances: Array = np.linalg.norm((self.cameras - self.measured)[:, :2], axis=1)
        return distances

    @property
    def vertical(self) -> Array:
        """Differences of height, (G,)."""
        return np.abs((self.cameras - self.measured)[:, 2])


def fit_gps(found: Contents, rows: Sequence[PhotoRow], models: Sequence[ModelView]) -> GpsFit | None:
    """Align the largest model to the GPS positions, and enter the residuals into the rows.

    Returns None if fewer than four of its photos have one, or if they do not determine the alignment.
    """
    gps = found.database.gps() if found.database else {}
    cameras = {camera["photo"]: camera["centre"] for camera in models[0].cameras} if models else {}
    photos = [i for i in cameras if rows[i].image_id in gps]
    if len(photos) < 4:
        return None
    degrees = np.array([gps[rows[i].image_id or 0] for i in photos])
    has_altitude = bool(np.isfinite(degrees[:, 2]).all())
    heights = degrees[:, 2] - degrees[0, 2] if has_altitude else np.zeros(len(photos))
    measured = np.column_stack([local_metres(degrees[:, 0], degrees[:, 1]), heights])
    centres = np.array([cameras[i] for i in photos])
    similarity = umeyama(centres, measured)
    if similarity is None:
        return None
    scale, rotation, translation = similarity
    fit = GpsFit(photos, measured, scale * centres @ rotation.T + translation, has_altitude)
    for i, residual in zip(photos, np.linalg.norm(fit.cameras - measured, axis=1).tolist(), strict=True):
        rows[i].gps_residual = round(residual, 3)
    return fit


def gps_figures(fit: GpsFit, names: Sequence[str]) -> dict[str, Any]:
    """The residuals of the GPS positions, in metres."""
    figures: dict[str, Any] = {
        "photos": len(fit.photos),
        "horizontal": {"median": _round(np.median(fit.horizontal)), "largest": _round(fit.horizontal.max())},
        "plan": [
            {"name": names[photo], "photo": photo, "gps": gps, "camera": camera}
            for photo, gps, camera in zip(
                fit.photos, fit.measured[:, :2].round(3).tolist(), fit.cameras[:, :2].round(3).tolist(), strict=True
            )
        ],
    }
    if fit.has_altitude:
        figures["vertical"] = {"median": _round(np.median(fit.vertical)), "largest": _round(fit.vertical.max())}
    return figures


def _round(value: Any) -> float:
    return round(float(value), 3)
