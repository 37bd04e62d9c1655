"""The models of a report: their figures, errors, points and cameras, of the folders sparse/0, sparse/1, ..."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lgbatch.colmap.log import colmap_log_off
from lgbatch.reconstruction.refinement.tracks import Tracks
from lgbatch.reconstruction.results import Model
from lgbatch.report.contents import Contents
from lgbatch.report.photos import PhotoRow
from lgbatch.types import ByteArray, LongArray

if TYPE_CHECKING:
    import pycolmap

Array = NDArray[np.float64]
_SHOWN_POINTS = 100_000
"""Points of all models that the page shows, 9 bytes each before compression."""
_STEPS = 65535
_OUTLIERS = 0.5
"""Percent of the points on each side of each axis that do not count for the extent of a model."""


@dataclass(frozen=True, eq=False)
class ModelView:
    """A model as the page shows it."""

    figures: Model
    errors: Array
    """(O,) reprojection errors of the observations, pixels."""
    lengths: LongArray
    """(P,) numbers of images that observe the points."""
    xyz: Array
    """(P, 3) positions of the points."""
    colors: ByteArray
    """(P, 3) RGB."""
    cameras: list[dict[str, Any]] = field(default_factory=list)
    """Of the registered images: `photo` (row), `centre`, `rotation` (camera_from_world, rows), `aspect` and `view`:
    width of the image over its height, and half of the width over the focal length."""


def read_models(found: Contents, rows: Sequence[PhotoRow]) -> list[ModelView]:
    """Return the models, and enter into the rows which model has each photo. The largest has it if several do."""
    views: list[ModelView] = []
    for folder in found.models:
        try:
            views.append(_read_model(folder, len(views), {row.name: i for i, row in enumerate(rows)}, rows))
        except ImportError:
            found.notes.append("pycolmap is not installed: the models in sparse/ are not shown")
            break
        except (RuntimeError, IndexError, ValueError, OSError) as error:  # what COLMAP raises for a damaged file
            found.notes.append(f"cannot read the model {folder}: {str(error).partition(chr(10))[0]}")
    return views


def _read_model(folder: Path, number: int, positions: dict[str, int], rows: Sequence[PhotoRow]) -> ModelView:
    import pycolmap

    with colmap_log_off():
        model = pycolmap.Reconstruction(folder)
    tracks = Tracks.of(model)
    xyz = tracks.xyz(model)
    errors = np.linalg.norm(tracks.project(model, xyz[tracks.point]) - tracks.positions(model), axis=1)
    cameras = []
    for image_id, part in tracks.by_image():
        image = model.images[image_id]
        if image.name not in positions:
            continue
        row = rows[positions[image.name]]
        if row.model is None:
            row.model, row.observations = number, part.stop - part.start
            row.error = float(errors[part].mean()) if part.stop > part.start else None
        cameras.append(_camera(model, image, positions[image.name]))
    finite = errors[np.isfinite(errors)]
    figures = Model(
        registered_images=model.num_reg_images(),
        points3D=len(xyz),
        observations=len(errors),
        mean_reprojection_error=model.compute_mean_reprojection_error(),
        mean_track_length=len(errors) / max(len(xyz), 1),
    )
    colors = np.array([model.points3D[i].color for i in tracks.points.tolist()], np.uint8).reshape(-1, 3)
    return ModelView(figures, finite, tracks.lengths(), xyz, colors, cameras)


def _camera(model: "pycolmap.Reconstruction", image: "pycolmap.Image", photo: int) -> dict[str, Any]:
    camera = model.cameras[image.camera_id]
    pose = np.asarray(image.cam_from_world().matrix())
    centre = -pose[:, :3].T @ pose[:, 3]
    return {
        "photo": photo,
        "centre": centre.tolist(),
        "rotation": pose[:, :3].round(6).tolist(),
        "aspect": round(camera.width / camera.height, 4),
        "view": round(camera.width / 2 / camera.mean_focal_length(), 4),
    }


@dataclass(frozen=True, eq=False)
class Cloud:
    """The points of a model, quantised."""

    low: list[float]
    """Position of the quantised point (0, 0, 0)."""
    step: float
    """Length of one step of the quantised positions."""
    xyz: NDArray[np.uint16]
    """(S, 3)."""
    colors: ByteArray
    """(S, 3)."""


def quantise(model: ModelView, shown: int) -> Cloud:
    """Return `shown` of the points at most, those that most images observe, within the extent of the model.

    The extent is that of the cameras and of the points without the outermost ones.
    """
    centres = np.array([camera["centre"] for camera in model.cameras]).reshape(-1, 3)
    if not len(model.xyz):
        return Cloud([0.0] * 3, 1.0, np.empty((0, 3), np.uint16), np.empty((0, 3), np.uint8))
    inner = np.percentile(model.xyz, (_OUTLIERS, 100 - _OUTLIERS), axis=0)
    low, high = np.vstack([inner, centres]).min(axis=0), np.vstack([inner, centres]).max(axis=0)
    inside = np.flatnonzero(((model.xyz >= low) & (model.xyz <= high)).all(axis=1))
    order = np.argsort(-model.lengths[inside], kind="stable")[:shown]
    kept = inside[order]
    step = float((high - low).max()) / _STEPS or 1.0
    return Cloud(low.tolist(), step, np.rint((model.xyz[kept] - low) / step).astype(np.uint16), model.colors[kept])


def shown_points(models: Sequence[ModelView]) -> list[int]:
    """Return how many points of each model the page shows."""
    total = sum(len(model.xyz) for model in models)
    share = min(1.0, _SHOWN_POINTS / max(total, 1))
    return [int(len(model.xyz) * share) for model in models]
