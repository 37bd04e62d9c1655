"""Import features and matches into a COLMAP database, converting them to COLMAP's conventions.

COLMAP puts the centre of the top-left pixel at (0.5, 0.5), lgbatch at (0, 0): 0.5 is added to keypoints here.
COLMAP identifies a pair by its two image ids, smaller first, and swaps the columns of the matches accordingly.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import sub
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from lgbatch.colmap.import_checks import check_indices, check_keypoints, check_pair_list
from lgbatch.colmap.local_copy import lockable
from lgbatch.colmap.log import colmap_log_off
from lgbatch.colmap.ownership import count_edited_cameras, is_marked, mark
from lgbatch.colmap.sensors.calibration import Calibration, check_camera_model
from lgbatch.colmap.sensors.cameras import CameraChoice, CameraMode, Sizes, add_images
from lgbatch.colmap.sensors.rigs import Rigs
from lgbatch.colmap.sources import FeatureSource, MatchSource
from lgbatch.colmap.sqlite import REBUILD_HINT, commit_draft, open_database, open_draft
from lgbatch.colmap.two_view import camera_digest, unpack_geometry
from lgbatch.colmap.verification import copy_two_view_geometries
from lgbatch.errors import DatabaseError
from lgbatch.types import Pair, PairList
from lgbatch.workspace.progress import track
from lgbatch.workspace.stage import StageResult

if TYPE_CHECKING:
    import pycolmap


_Totals = tuple[int, int, int, int, int]
"""Images, cameras, keypoints, pairs with matches, and matches."""


@dataclass(frozen=True)
class DatabaseCounts(StageResult):
    """What an import added to the database. All zero: the database was complete and was not touched."""

    images: int = 0
    cameras: int = 0
    keypoints: int = 0
    pairs: int = 0
    matches: int = 0
    rebuilt: bool = False
    """The database had something that the input does not have, and was built anew. The counts are then of all rows."""
    dropped_images: int = 0
    dropped_pairs: int = 0
    """Images, and pairs with matches, that the rebuilt database no longer has."""
    other_images: int = field(default=0, compare=False)
    """Images that another program put into the database. They stay in it, and can be part of the model."""
    absent_images: int = 0
    """Images with features that were left out, because their photo is no longer in the folder."""
    reset_cameras: int = 0
    """Cameras of the replaced database that had other parameters: edits, which are lost."""
    edited_cameras: int = 0
    """Cameras with other parameters in the replaced database although the settings are unchanged: lost edits."""
    mirrored_images: int = field(default=0, compare=False)
    """Images whose stored pixels are mirrored. Their keypoints are mirrored back, left and right."""
    unpaired: tuple[str, ...] = ()
    """Images that are in no pair of the pairs file."""
    rigs: dict[str, int] = field(default_factory=dict, compare=False)
    """Counts of rigs and frames, see Rigs.apply. Empty without a rig file."""

    def as_repeated(self) -> Self:
        """The result of a run that skips the stage: it adds nothing."""
        return type(self)(finished_already=True, rigs=self.rigs, mirrored_images=self.mirrored_images)


@dataclass(frozen=True)
class _Import:
    """The checked input of an import."""

    path: Path
    image_folder: Path
    features: FeatureSource
    matches: MatchSource
    sizes: Sizes
    pairs: PairList
    cameras: CameraChoice
    exact: bool
    foreign: bool
    """Whether another program made the database: its cameras, rigs and images stay as they are."""
    progress: bool


@dataclass(frozen=True)
class _Written:
    """What a database holds after an import."""

    ids: dict[str, int]
    """Image ids by name."""
    matched_pairs: int
    """Number of pairs with matches."""
    rigs: dict[str, int]


def import_database(
    path: Path,
    image_folder: Path,
    features: FeatureSource,
    matches: MatchSource,
    *,
    camera_mode: CameraMode,
    camera_model: str,
    calibration: Calibration | None = None,
    rigs: Rigs | None = None,
    gravity: bool = True,
    view: bool = False,
    progress: bool = False,
) -> DatabaseCounts:
    """Bring the COLMAP database at `path` up to date with `features` and `matches`.

    Cameras, GPS positions and, with `gravity`, its direction come from the photos' EXIF by COLMAP's rules, also in
    formats that COLMAP cannot read (WebP, JPEG 2000, AVIF, HEIF, raw). In mode 'auto' the EXIF of a camera in the
    database is read from its first photo. Images and pairs in the database must equal the input; they and their
    two-view geometries are left unchanged. Images of a database that another program made keep their cameras and rigs,
    whatever the mode and model. Pairs without matches get no row.

    Rows are written to a copy, which replaces the database at the end: after an error the database is as before. If
    nothing is missing, the file is not touched.

    With `view`, the database holds exactly the input afterwards: one that differs from it, or has images or pairs that
    the input lacks, is built anew. Two-view geometries of pairs that have not changed are kept.

    Raises DatabaseError, naming the image or pair, if the input is invalid or differs from the database, and
    InputError if the camera model is unknown, or calibration or rigs do not fit the photos.
    """
    check_camera_model(camera_model)
    sizes = _image_sizes(features, image_folder)
    turns = {name: features.orientation(name) for name in sizes}
    cameras = CameraChoice(camera_mode, camera_model, calibration, rigs, gravity, turns)
    pairs = PairList.of(matches.pairs())
    check_pair_list(pairs, set(sizes))
    try:
        with colmap_log_off(), lockable(path) as local:
            foreign = not view and local.exists() and not is_marked(local)
            request = _Import(local, image_folder, features, matches, sizes, pairs, cameras, view, foreign, progress)
            try:
                return _update(request)
            except DatabaseError:
                if not (view and local.exists()):
                    raise
            return _rebuild(request)
    except (RuntimeError, ValueError, OSError, sqlite3.Error) as error:
        reason = str(error).partition("\n")[0]
        raise DatabaseError(f"cannot write {path}: {reason}; check free space and permissions") from error


def _update(request: _Import) -> DatabaseCounts:
    """Update a draft of the database and commit it if rows were added.

    With `request.exact`, raises DatabaseError if the database has images or pairs that the input lacks.
    """
    path, is_new = request.path, not request.path.exists()
    with open_draft(path) as draft:
        with open_database(draft, shared=False) as db:
            before, verified = _totals(db), db.num_verified_image_pairs()
            written = _write_rows(db, request)
            after = _totals(db)
            expected = len(request.sizes), written.matched_pairs
            if request.exact and (db.num_images(), db.num_matched_image_pairs()) != expected:
                raise DatabaseError(f"{path} has images or pairs that are not in the input: {REBUILD_HINT}")
            other_images = db.num_images() - len(request.sizes)
            newly_verified = db.num_verified_image_pairs() > verified
        counts = DatabaseCounts(*map(sub, after, before))
        if is_new or request.exact:
            mark(draft)
        if counts != DatabaseCounts() or newly_verified:
            commit_draft(draft, path)
    return replace(counts, other_images=other_images, rigs=written.rigs)


def _rebuild(request: _Import) -> DatabaseCounts:
    """Build the database anew, and copy the two-view geometries of unchanged pairs."""
    path = request.path
    with open_draft(path, suffix=".previous") as previous, open_draft(path, empty=True) as draft:
        with open_database(previous, shared=False) as old, open_database(draft, shared=False) as new:
            written = _write_rows(new, request)
            copy_two_view_geometries(old, new, written.ids, request.pairs)
            old_images = {image.name: image.image_id for image in old.read_all_images()}
            dropped_pairs = old.num_matched_image_pairs() - _common_pairs(old, old_images, request.pairs)
            totals, edited = _totals(new), count_edited_cameras(old, new)
        mark(draft)
        commit_draft(draft, path)
    dropped_images = len(old_images.keys() - written.ids.keys())
    counts = DatabaseCounts(*totals, rebuilt=True, edited_cameras=edited, rigs=written.rigs)
    return replace(counts, dropped_images=dropped_images, dropped_pairs=dropped_pairs)


def _write_rows(db: "pycolmap.Database", request: _Import) -> _Written:
    """Write the rows that the database lacks, and compare the others."""
    ids, rigs = add_images(
        db,
        request.image_folder,
        request.sizes,
        request.cameras,
        exact=request.exact,
        keep_cameras=request.foreign,
        progress=request.progress,
    )
    keypoint_counts = _add_keypoints(db, request.features, ids)
    pairs = _add_matches(db, request.matches, request.pairs, ids, keypoint_counts, request.progress)
    return _Written(ids, pairs, rigs)


def _common_pairs(db: "pycolmap.Database", ids: Mapping[str, int], pairs: Sequence[Pair]) -> int:
    """Count the pairs that have matches in the database."""
    return sum(a in ids and b in ids and db.exists_matches(ids[a], ids[b]) for a, b in pairs)


def _totals(db: "pycolmap.Database") -> _Totals:
    """The numbers of rows in the order of the fields of DatabaseCounts."""
    pairs = db.num_matched_image_pairs()
    return db.num_images(), db.num_cameras(), db.num_keypoints(), pairs, db.num_matches()


def _image_sizes(features: FeatureSource, image_folder: Path) -> Sizes:
    """(width, height) by image name, in the order of the features.

    Raises DatabaseError if there are no images, a name is repeated, or a photo is missing.
    """
    sizes: Sizes = {}
    for name in features.names():
        if name in sizes:
            raise DatabaseError(f"image {name} appears twice in the features: extract them again")
        if not (image_folder / name).is_file():
            raise DatabaseError(f"image {name} has features but is not in {image_folder}: put it back")
        sizes[name] = features.image_size(name)
    if not sizes:
        raise DatabaseError("no image has features: run `lgbatch extract` first")
    return sizes


def _add_keypoints(db: "pycolmap.Database", features: FeatureSource, ids: dict[str, int]) -> dict[str, int]:
    """Write the keypoints that the database lacks and compare the others. Returns the keypoint count by image name.

    Raises DatabaseError if keypoints are invalid or differ from those in the database.
    """
    counts = {}
    for name, image_id in ids.items():
        keypoints = features.keypoints(name)
        if keypoints.ndim != 2 or keypoints.shape[1] != 2 or not np.isfinite(keypoints).all():
            raise DatabaseError(f"the keypoints of image {name} are not (N, 2) finite numbers: extract it again")
        counts[name] = len(keypoints)
        keypoints = np.ascontiguousarray(keypoints, np.float32) + np.float32(0.5)
        if not db.exists_keypoints(image_id):
            db.write_keypoints(image_id, keypoints)
        else:
            check_keypoints(name, db.read_keypoints(image_id), keypoints)
    return counts


def _add_matches(
    db: "pycolmap.Database",
    matches: MatchSource,
    pairs: Sequence[Pair],
    ids: dict[str, int],
    keypoint_counts: dict[str, int],
    progress: bool,
) -> int:
    """Write the matches that the database lacks and compare the others. Returns the number of pairs with matches.

    Pairs that are verified already get their two-view geometry.

    Uses no transaction: the draft needs none, and COLMAP aborts the process if it cannot write the end of one. Raises
    DatabaseError if matches are invalid or differ from those in the database.
    """
    known = {camera.camera_id: camera for camera in db.read_all_cameras()}
    cameras = {image.name: known[image.camera_id] for image in db.read_all_images()}
    digests = {name: camera_digest(camera) for name, camera in cameras.items()}
    matched_pairs = 0
    for pair in track(pairs, "database", total=len(pairs), unit="pair", shown=progress):
        indices = matches.indices(pair)
        check_indices(pair, indices, keypoint_counts)
        matched_pairs += len(indices) > 0
        a, b = ids[pair.a], ids[pair.b]
        if db.exists_matches(a, b):
            if not np.array_equal(db.read_matches(a, b), indices):
                raise DatabaseError(f"pair {pair.a} {pair.b} has different matches in the database: {REBUILD_HINT}")
        elif len(indices):
            db.write_matches(a, b, indices.astype(np.uint32))
        packed = matches.geometry(pair) if len(indices) and not db.exists_two_view_geometry(a, b) else None
        of_pair = [cameras[name] for name in pair]
        if packed and (found := unpack_geometry(packed, indices, (digests[pair.a], digests[pair.b]), of_pair)):
            db.write_two_view_geometry(*((b, a) if found.swapped else (a, b)), found.geometry)
    return matched_pairs
