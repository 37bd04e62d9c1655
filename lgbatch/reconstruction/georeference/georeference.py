"""Models of a workspace, moved into a metric frame on the earth: `lgbatch georeference`.

The models in sparse/ stay as they are. georeferenced/N is model N in the frame, with georeference.json beside it: the
frame, the transform, and the residuals.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lgbatch.colmap.log import colmap_log_off
from lgbatch.errors import InputError, ReconstructionError
from lgbatch.pairing.evidence.positions import MOST_DEGREES
from lgbatch.reconstruction.evaluation.formats.colmap_model import read_model
from lgbatch.reconstruction.georeference.alignment import Alignment, align
from lgbatch.reconstruction.georeference.control_points import ControlPoints, read_control_points
from lgbatch.reconstruction.georeference.far_from_photos import far_from_photos
from lgbatch.reconstruction.georeference.frame import Array, Frame
from lgbatch.reconstruction.georeference.photo_positions import PhotoPositions, from_exif, from_file
from lgbatch.reconstruction.georeference.results import Adjusted, Georeferenced, GeoreferencedModel
from lgbatch.reconstruction.model_folders import draft_folder, numbered_models, publish_folders, remove_draft
from lgbatch.reconstruction.progress import run_timed
from lgbatch.reconstruction.subprocess_worker import Message
from lgbatch.runtime.packages import require_pycolmap
from lgbatch.storage.durable import write_synced
from lgbatch.types import counted, escape
from lgbatch.workspace.folder import Workspace

if TYPE_CHECKING:
    import pycolmap

FILE = "georeference.json"
GPS_ACCURACY, SURVEY_ACCURACY = 3.0, 0.1
"""Standard deviations in metres of GPS without corrections, and of control points."""
_LOOKS_UP = 0.5
"""Mean sine of the elevation of views from which a model is hardly the right way up."""
_WORKER = "lgbatch.reconstruction.georeference.adjust"
Models = Mapping[int, "pycolmap.Reconstruction"]


@dataclass(frozen=True)
class Known:
    """Known positions of photos or control points, and where the models have them."""

    frame: Frame
    source: str
    what: str
    targets: Mapping[str, Array]
    """Positions (3,) in the frame, by name."""
    find: "Callable[[pycolmap.Reconstruction], Mapping[str, tuple[Array, float]]]"
    """Finds positions (3,) in a model, with reprojection errors in pixels, by name."""
    without: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    doubt: str = ""
    """Why all of the positions are probably wrong."""


def georeference(
    workspace: Workspace,
    *,
    photos: Path | None = None,
    positions: Path | None = None,
    control_points: Path | None = None,
    accuracy: float | None = None,
    adjust: bool = False,
    progress: bool = False,
) -> Georeferenced:
    """Move the models of a workspace into a metric frame, and write them to georeferenced/.

    The positions are those in a file, those of control points, or by default those in the EXIF of the `photos`, with
    which the others are compared. Their standard deviation is `accuracy` metres. With `adjust`, a bundle adjustment
    then balances them with the observations, in a child process.

    Raises InputError if there are no models or no positions, and ReconstructionError if the positions determine the
    transform of no model, or if the adjustment fails.
    """
    require_pycolmap()
    if accuracy is None:
        accuracy = SURVEY_ACCURACY if control_points else GPS_ACCURACY
    if not 0 < accuracy < np.inf:
        raise InputError(f"an accuracy of {accuracy:g} m is impossible: give the standard deviation of the positions")
    folders = sorted(numbered_models(workspace.sparse), key=lambda folder: int(folder.name))
    if not folders:
        raise InputError(f"{workspace.sparse} has no models: run `lgbatch run` or `lgbatch reconstruct` first")
    with colmap_log_off():
        models = {int(folder.name): read_model(folder) for folder in folders}
        names = sorted(_registered(models))
        if control_points:
            known = _known_points(read_control_points(control_points), models)
            what, check = "control points", f"the reference system in the first line of {control_points}"
        else:
            known = _known_photos(from_file(positions, names) if positions else _from_exif(photos, names), accuracy)
            what, check = f"positions in {positions}", "its signs and the order of its columns"
        if control_points or positions:
            known = replace(known, doubt=far_from_photos(known.frame, photos, names, escape(what), escape(check)))
        found, left_out = _align_all(models, known, accuracy)
        result = Georeferenced(
            folder=workspace.georeferenced,
            frame=known.frame,
            source=known.source,
            what=known.what,
            accuracy=accuracy,
            models=found,
            left_out=left_out,
            without=known.without,
            notes=known.notes,
        )
        return _write(result, models, known.targets if adjust else {}, progress)


def _registered(models: Models) -> set[str]:
    """Names of the images that have a pose."""
    return {image.name for model in models.values() for image in model.images.values() if image.has_pose}


def _from_exif(photos: Path | None, names: list[str]) -> PhotoPositions:
    if photos is None:
        raise InputError("the folder of the photos is unknown: give it with --images, or use --positions")
    if not photos.is_dir():
        raise InputError(f"there is no folder {photos}: give that of the photos with --images, or use --positions")
    return from_exif(photos, names)


def _known_photos(found: PhotoPositions, accuracy: float) -> Known:
    located = np.isfinite(found.positions.sum(axis=1))
    if not found.is_degrees and _may_be_degrees(found.positions[located], accuracy):
        raise InputError(
            f"all photos of {found.source} are within {accuracy:g} m: if these are degrees, write 'name latitude "
            "longitude altitude' as first line, in the order of the columns; else give --accuracy"
        )
    frame = Frame.around(found.positions[located], found.is_degrees)
    names = [name for name, known in zip(found.names, located.tolist(), strict=True) if known]
    local = frame.local(found.positions[located])

    def find(model: "pycolmap.Reconstruction") -> Mapping[str, tuple[Array, float]]:
        images = (image for image in model.images.values() if image.has_pose)
        return {image.name: (np.asarray(image.projection_center()), np.nan) for image in images}

    notes = []
    if not set(names).isdisjoint(found.no_altitude):
        notes.append(
            "no position has an altitude: all photos are taken to be at altitude 0, which tilts uneven flights"
        )
    elif found.no_altitude:
        notes.append(f"left out, since the altitude is missing: {counted(len(found.no_altitude), 'photo')}")
    if found.implausible:
        notes.append(f"left out, since latitude and longitude are 0: {counted(len(found.implausible), 'photo')}")
    return Known(
        frame,
        f"{found.source}, of {len(names)} of {counted(len(found.names), 'registered photo')}",
        "photos with positions",
        dict(zip(names, local, strict=True)),
        find,
        tuple(name for name in found.names if name not in set(names)),
        tuple(notes),
    )


def _may_be_degrees(positions: Array, accuracy: float) -> bool:
    """Whether coordinates are too close together for metres of this accuracy, and may be degrees."""
    extent = float(np.ptp(positions[:, :2], axis=0).max())
    return 0 < extent < accuracy and bool((np.abs(positions[:, :2]) <= MOST_DEGREES[1]).all())


def _known_points(points: ControlPoints, models: Models) -> Known:
    frame = Frame.around(points.degrees, True)
    names = _distinct([point.name for point in points.points])

    def find(model: "pycolmap.Reconstruction") -> Mapping[str, tuple[Array, float]]:
        found = zip(names, points.triangulate(model), strict=True)
        return {name: (point.xyz, point.error) for name, point in found if point}

    if not any(map(points.are_in, models.values())):
        first, second = (escape(min(found, default="none")) for found in (points.images, _registered(models)))
        raise InputError(
            f"no image of {points.path} (such as {first}) is in a model (such as {second}): compare the names"
        )
    targets = dict(zip(names, frame.local(points.degrees), strict=True))
    seen = {name for model in models.values() for name in find(model)}
    source = f"{counted(len(names), 'control point')} of {points.path.name}"
    return Known(frame, source, "control points", targets, find, tuple(name for name in names if name not in seen))


def _distinct(names: list[str]) -> list[str]:
    return [name if names.count(name) == 1 else f"{name} ({names[:i].count(name) + 1})" for i, name in enumerate(names)]


def _align_all(models: Models, known: Known, accuracy: float) -> tuple[list[GeoreferencedModel], dict[int, str]]:
    found, left_out = [], {}
    for number, model in models.items():
        try:
            found.append(_align(number, model, known, accuracy))
        except ReconstructionError as error:
            left_out[number] = str(error)
    if not found:
        raise ReconstructionError("; ".join(filter(None, [next(iter(left_out.values())), known.doubt])))
    return found, left_out


def _align(number: int, model: "pycolmap.Reconstruction", known: Known, accuracy: float) -> GeoreferencedModel:
    placed = known.find(model)
    names = [name for name in known.targets if name in placed]
    source = np.array([placed[name][0] for name in names]).reshape(-1, 3)
    target = np.array([known.targets[name] for name in names]).reshape(-1, 3)
    alignment = align(source, target, accuracy, f"{known.what} of model {number}")
    turned = _upside_down(model, alignment) if known.frame.is_map else ""
    alignment = replace(alignment, weak="; ".join(filter(None, [alignment.weak, turned, known.doubt])))
    errors = [placed[name][1] for name in names]
    return GeoreferencedModel(
        number=number,
        registered=model.num_reg_images(),
        names=names,
        alignment=alignment,
        pixel_errors=() if np.isnan(errors).any() else errors,
    )


def _upside_down(model: "pycolmap.Reconstruction", alignment: Alignment) -> str:
    """Why the positions may be a mirror image of the true ones: for a flight, the model is then upside down."""
    views = np.array([image.viewing_direction() for image in model.images.values() if image.has_pose])
    up = float(np.mean(views @ alignment.rotation[2]))
    if up < _LOOKS_UP:
        return ""
    return (
        f"the cameras look up, by {np.degrees(np.arcsin(min(up, 1.0))):.0f} degrees: do positions lack the sign of "
        "west or south, or are x and y swapped?"
    )


def _write(result: Georeferenced, models: Models, priors: Mapping[str, Array], progress: bool) -> Georeferenced:
    """Write the models, adjusted to the `priors` if there are any, in place of those of an earlier run."""
    draft = draft_folder(result.folder)
    try:
        remove_draft(result.folder)
        folders = [draft / str(found.number) for found in result.models]
        for found, folder in zip(result.models, folders, strict=True):
            folder.mkdir(parents=True)
            models[found.number].transform(_similarity(found.alignment))
            models[found.number].write(folder)
        if priors:
            result = replace(result, models=_adjust(result, models, folders, priors, progress))
        for found, folder in zip(result.models, folders, strict=True):
            write_synced(folder / FILE, json.dumps(result.about() | found.as_dict(), indent=1).encode() + b"\n")
        publish_folders(folders, result.folder)
    except OSError as error:
        raise ReconstructionError(f"cannot write {result.folder}: {error}") from error
    finally:
        remove_draft(result.folder)
    return result


def _similarity(alignment: Alignment) -> "pycolmap.Sim3d":
    import pycolmap

    return pycolmap.Sim3d(alignment.scale, pycolmap.Rotation3d(alignment.rotation), alignment.translation)


def _adjust(
    result: Georeferenced, models: Models, folders: list[Path], priors: Mapping[str, Array], progress: bool
) -> list[GeoreferencedModel]:
    kept = [
        {name: priors[name].tolist() for name, used in zip(m.names, m.alignment.inliers.tolist(), strict=True) if used}
        for m in result.models
    ]
    request: Message = {
        "models": [[str(folder), positions] for folder, positions in zip(folders, kept, strict=True)],
        "accuracy": result.accuracy,
    }
    try:
        done = run_timed(_WORKER, request, "adjust", shown=progress)["models"]
    except RuntimeError as error:
        reason = escape(str(error).partition("\n")[0])
        raise ReconstructionError(f"cannot adjust the models to the positions: {reason}; leave it out") from None
    return [
        replace(
            found,
            adjusted=Adjusted(
                residuals=np.array([priors[name] - after["centres"][name] for name in found.names]),
                error_before=models[found.number].compute_mean_reprojection_error(),
                error_after=after["error"],
            ),
        )
        for found, after in zip(result.models, done, strict=True)
    ]
