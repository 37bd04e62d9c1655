"""Features and matches -> COLMAP database. The only place that knows COLMAP's conventions for them.

COLMAP puts the centre of the top-left pixel at (0.5, 0.5), lgbatch at (0, 0): keypoints gain 0.5 here.
COLMAP names a pair by its two image ids, smaller first, and swaps the columns of its matches accordingly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
from tqdm import tqdm

from lgbatch.colmap.cameras import CameraMode, Sizes, add_images
from lgbatch.colmap.log import colmap_log_off
from lgbatch.colmap.sqlite import WAY_OUT, open_database, open_draft, replace
from lgbatch.errors import DatabaseError, InputError
from lgbatch.types import FloatArray, IntArray, Pair
from lgbatch.workspace.signals import renew
from lgbatch.workspace.stage import StageResult

if TYPE_CHECKING:
    import pycolmap


class FeatureSource(Protocol):
    """Where keypoints come from, one image at a time."""

    def names(self) -> Sequence[str]:
        """Image names: paths below the image folder, with forward slashes."""

    def keypoints(self, name: str) -> FloatArray:
        """(N, 2) float32, x and y in pixels of the original image, top-left pixel centre (0, 0)."""

    def image_size(self, name: str) -> tuple[int, int]:
        """(width, height) of the original image, as COLMAP sees the file."""


class MatchSource(Protocol):
    """Where matches come from, one pair at a time."""

    def pairs(self) -> Sequence[Pair]:
        """The pairs, each once, in either order."""

    def indices(self, pair: Pair) -> IntArray:
        """(K, 2) int32, rows into the keypoints of the pair's first and second image, one to one."""


@dataclass(frozen=True)
class DatabaseCounts(StageResult):
    """What one import added. All zero: the database was complete and was not touched."""

    images: int = 0
    cameras: int = 0
    keypoints: int = 0
    pairs: int = 0
    matches: int = 0

    def as_repeated(self) -> Self:
        """A run that skips the stage adds nothing."""
        return type(self)(finished_already=True)


def import_database(
    path: Path,
    image_folder: Path,
    features: FeatureSource,
    matches: MatchSource,
    *,
    camera_mode: CameraMode,
    camera_model: str,
    rebuild: bool = False,
    progress: bool = False,
) -> DatabaseCounts:
    """Bring the COLMAP database at `path` up to date with `features` and `matches`.

    Cameras and GPS positions are COLMAP's own reading of the photos' EXIF; what COLMAP cannot read (WebP,
    JPEG 2000) gets its guess of the focal length. Images and pairs that the database holds already must equal
    the input and are left alone, two-view geometries too. In mode 'auto' the EXIF of a camera that is there
    is taken from its first image. Pairs without matches get no row. All is written to a copy, which replaces
    the database at the end: a failure leaves the database as it was, and where nothing is missing the file is
    not touched. With `rebuild`, a database that does not equal the input, or has more pairs than it, is a view of
    something that is no more: it is made anew from the input, if that has all of its images.

    Raises DatabaseError, naming the image or pair, when the input is unusable or differs from what the
    database holds, and InputError on an unknown camera model.
    """
    check_camera_model(camera_model)
    sizes = _image_sizes(features, image_folder)
    pairs = matches.pairs()
    _check_pairs(pairs, set(sizes))
    add = partial(
        _import, path, image_folder, features, matches, sizes, pairs, camera_mode, camera_model, progress=progress
    )
    try:
        with colmap_log_off():
            try:
                return add(exact=rebuild)
            except DatabaseError:
                if not (rebuild and path.exists() and _images_of(path) <= set(sizes)):
                    raise
            return add(anew=True)
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise DatabaseError(f"cannot write {path}: {reason}; check free space and permissions") from error


def _import(
    path: Path,
    image_folder: Path,
    features: FeatureSource,
    matches: MatchSource,
    sizes: Sizes,
    pairs: Sequence[Pair],
    camera_mode: CameraMode,
    camera_model: str,
    *,
    progress: bool,
    exact: bool = False,
    anew: bool = False,
) -> DatabaseCounts:
    with open_draft(path, anew=anew) as draft:
        with open_database(draft, shared=False) as db:
            before = _totals(db)
            ids = add_images(db, image_folder, sizes, camera_mode, camera_model, progress)
            lengths = _add_keypoints(db, features, ids)
            matched = _add_matches(db, matches, pairs, ids, lengths, progress)
            after = _totals(db)
            if exact and db.num_matched_image_pairs() > matched:
                raise DatabaseError(f"{path} has pairs that are not among the matches: {WAY_OUT}")
        counts = DatabaseCounts(*(b - a for a, b in zip(before, after, strict=True)))
        if anew or counts != DatabaseCounts():
            replace(draft, path)
    return counts


def _images_of(path: Path) -> set[str]:
    with open_draft(path) as draft, open_database(draft, shared=False) as db:  # opening a database changes it
        return {image.name for image in db.read_all_images()}


def _totals(db: "pycolmap.Database") -> tuple[int, int, int, int, int]:
    pairs = db.num_matched_image_pairs()
    return db.num_images(), db.num_cameras(), db.num_keypoints(), pairs, db.num_matches()


def check_camera_model(camera_model: str) -> None:
    """Raise InputError, naming COLMAP's camera models, when this is none of them."""
    import pycolmap

    renew()
    known = [name for name in pycolmap.CameraModelId.__members__ if name != "INVALID"]
    if camera_model not in known:
        raise InputError(f"unknown camera model '{camera_model}': use one of {', '.join(known)}")


def _image_sizes(features: FeatureSource, image_folder: Path) -> Sizes:
    """(width, height) by image name, in the features' order; all are checked to exist."""
    sizes: Sizes = {}
    for name in features.names():
        if name in sizes:
            raise DatabaseError(f"image {name} is twice in the features: extract them again")
        if not (image_folder / name).is_file():
            raise DatabaseError(f"image {name} has features but is not in {image_folder}: put it back there")
        sizes[name] = features.image_size(name)
    if not sizes:
        raise DatabaseError("no image has features: run `lgbatch extract` first")
    return sizes


def _check_pairs(pairs: Sequence[Pair], names: set[str]) -> None:
    seen: set[tuple[str, str]] = set()
    for a, b in pairs:
        for name in (a, b):
            if name not in names:
                raise DatabaseError(f"pair {a} {b}: {name} has no features; extract them or drop the pair")
        if a == b:
            raise DatabaseError(f"pair {a} {b} is an image with itself: drop it from the matches")
        key = (a, b) if a < b else (b, a)
        if key in seen:
            raise DatabaseError(f"pair {a} {b} comes twice: drop one of the two from the matches")
        seen.add(key)


def _add_keypoints(db: "pycolmap.Database", features: FeatureSource, ids: dict[str, int]) -> dict[str, int]:
    """Write what is missing, compare what is there; the number of keypoints by image name."""
    lengths = {}
    for name, image_id in ids.items():
        keypoints = features.keypoints(name)
        if keypoints.ndim != 2 or keypoints.shape[1] != 2 or not np.isfinite(keypoints).all():
            raise DatabaseError(f"the keypoints of image {name} are not (N, 2) finite numbers: extract it again")
        lengths[name] = len(keypoints)
        keypoints = np.ascontiguousarray(keypoints, np.float32) + np.float32(0.5)
        if not db.exists_keypoints(image_id):
            db.write_keypoints(image_id, keypoints)
        elif not np.array_equal(db.read_keypoints(image_id), keypoints):
            raise DatabaseError(f"image {name} has other keypoints in the database: {WAY_OUT}")
    return lengths


def _add_matches(
    db: "pycolmap.Database",
    matches: MatchSource,
    pairs: Sequence[Pair],
    ids: dict[str, int],
    lengths: dict[str, int],
    progress: bool,
) -> int:
    """Write what is missing, compare what is there; the number of pairs that have matches.

    Without a transaction: the draft needs none, and where COLMAP cannot write the end of one, it aborts the process.
    """
    matched = 0
    for pair in tqdm(pairs, desc="database", unit="pair", disable=None if progress else True):
        indices = matches.indices(pair)
        _check_indices(pair, indices, lengths)
        matched += len(indices) > 0
        a, b = ids[pair.a], ids[pair.b]
        if db.exists_matches(a, b):
            if not np.array_equal(db.read_matches(a, b), indices):
                raise DatabaseError(f"pair {pair.a} {pair.b} has other matches in the database: {WAY_OUT}")
        elif len(indices):
            db.write_matches(a, b, indices.astype(np.uint32))
    return matched


def _check_indices(pair: Pair, indices: IntArray, lengths: dict[str, int]) -> None:
    """What COLMAP would take, and later crash on or misread."""
    if indices.ndim != 2 or indices.shape[1] != 2 or not np.issubdtype(indices.dtype, np.integer):
        problem = "are not (K, 2) integers"
    elif len(indices) == 0:
        return
    elif (indices.min(0) < 0).any() or (indices.max(0) >= (lengths[pair.a], lengths[pair.b])).any():
        problem = f"point outside the {lengths[pair.a]} and {lengths[pair.b]} keypoints"
    elif any(np.bincount(column).max() > 1 for column in indices.T):
        problem = "use one keypoint twice"
    else:
        return
    raise DatabaseError(f"the matches of pair {pair.a} {pair.b} {problem}: match it again")
