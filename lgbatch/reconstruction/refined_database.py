"""A copy of the database with the keypoints and cameras of the refined models, to be mapped by other programs.

COLMAP's mapper, given such a copy, starts from the refined positions and intrinsics. The workspace's own database stays
a view of the stores, which hold the keypoints as they were found.
"""

import contextlib
import shutil
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lgbatch.colmap.local_copy import lockable
from lgbatch.colmap.ownership import unmark
from lgbatch.colmap.sqlite import checkpoint, commit_draft, open_draft
from lgbatch.errors import DatabaseError, InputError, ReconstructionError
from lgbatch.reconstruction.evaluation.formats.colmap_model import read_model
from lgbatch.reconstruction.model_folders import numbered_models
from lgbatch.types import BoolArray, FloatArray
from lgbatch.workspace.folder import Workspace

if TYPE_CHECKING:
    import pycolmap

_MOVED = 1e-3  # pixels; less is rounding to single precision


@dataclass(frozen=True, eq=False)
class _Refined:
    """What a model has of an image."""

    camera: "pycolmap.Camera"
    positions: FloatArray
    """(N, 2) of the keypoints, in COLMAP's pixels."""
    observed: BoolArray
    """(N,) whether the keypoint is an observation of a point."""


_Images = Mapping[str, _Refined]
"""By image name."""


def check_new_database(path: Path) -> None:
    """Raise InputError if there is a file `path` already."""
    if path.exists():
        raise InputError(f"{path} already exists: choose another name, or move it away")


def write_refined_database(workspace: Workspace, path: Path) -> int:
    """Copy the workspace's database to the new file `path`, with the observations and intrinsics of the models.

    Matches and two-view geometries are copied; keypoints that no model observes and cameras without an image in a model
    stay. If several models have an image or camera, the one of the lowest number counts. The copy is not marked as
    lgbatch's: no import rebuilds it.

    Returns the number of keypoints that moved. Raises InputError if `path` exists, ReconstructionError if there is no
    model or none of its observations has moved, and DatabaseError if the database is missing, in use, or not the one
    that was mapped, or the copy cannot be written.
    """
    check_new_database(path)
    images = _read_models(workspace.sparse)
    if not workspace.database.is_file():
        raise DatabaseError(f"there is no {workspace.database}: run `lgbatch match` again")
    try:
        with (
            lockable(workspace.database) as database,
            lockable(path) as target,
            open_draft(target, empty=True) as draft,
        ):
            checkpoint(database)
            shutil.copyfile(database, draft)
            with contextlib.closing(sqlite3.connect(draft)) as connection, connection:
                moved = _move_keypoints(connection, images)
                _set_intrinsics(connection, images)
            if not moved:
                raise ReconstructionError(
                    f"{path} was not written: no observation of the models in {workspace.sparse} has moved; they are "
                    "as mapped"
                )
            unmark(draft)
            commit_draft(draft, target)
    except (OSError, sqlite3.Error) as error:
        raise DatabaseError(f"cannot write {path} ({error}): check free space and permissions") from None
    return moved


def _read_models(sparse: Path) -> _Images:
    found: dict[str, _Refined] = {}
    for folder in sorted(numbered_models(sparse), key=lambda folder: int(folder.name)):
        model = read_model(folder)
        for image in model.images.values():
            if image.has_pose and image.name not in found:
                positions = np.array([feature.xy for feature in image.points2D], np.float32).reshape(-1, 2)
                observed = np.array([feature.has_point3D() for feature in image.points2D], np.bool_)
                found[image.name] = _Refined(model.cameras[image.camera_id], positions, observed)
    if not found:
        raise ReconstructionError(f"{sparse} has no models: run `lgbatch reconstruct` first")
    return found


def _move_keypoints(connection: sqlite3.Connection, images: _Images) -> int:
    """Move the keypoints of a database to the observations. Returns the number that moved."""
    moved = 0
    rows = connection.execute("SELECT image_id, name, cols, data FROM images JOIN keypoints USING (image_id)")
    for image_id, name, columns, data in rows.fetchall():
        if not (refined := images.get(name)):
            continue
        keypoints = np.frombuffer(data or b"", np.float32).reshape(-1, columns or 2).copy()
        if len(refined.positions) != len(keypoints):
            raise DatabaseError(
                f"the database has {len(keypoints)} keypoints of {name}, the model {len(refined.positions)}: run "
                "`lgbatch reconstruct` again"
            )
        distance = np.abs(refined.positions - keypoints[:, :2]).max(axis=1, initial=0)
        chosen = refined.observed & (distance > _MOVED)
        keypoints[chosen, :2] = refined.positions[chosen]
        moved += int(chosen.sum())
        connection.execute("UPDATE keypoints SET data = ? WHERE image_id = ?", (keypoints.tobytes(), image_id))
    return moved


def _set_intrinsics(connection: sqlite3.Connection, images: _Images) -> None:
    """Give the cameras of a database the intrinsics that they have in the models."""
    names = connection.execute("SELECT camera_id, name FROM images ORDER BY image_id").fetchall()
    cameras: dict[int, pycolmap.Camera] = {}
    for camera_id, name in names:
        if refined := images.get(name):
            cameras.setdefault(camera_id, refined.camera)
    update = "UPDATE cameras SET model = ?, params = ?, prior_focal_length = 1 WHERE camera_id = ?"
    for camera_id, camera in cameras.items():
        params = np.asarray(camera.params, np.float64).tobytes()
        connection.execute(update, (int(camera.model), params, camera_id))
