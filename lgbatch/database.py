"""Features and matches -> COLMAP database. The only place that knows COLMAP's conventions.

COLMAP puts the centre of the top-left pixel at (0.5, 0.5), lgbatch at (0, 0): keypoints gain 0.5 here.
COLMAP names a pair by its two image ids, smaller first, and swaps the columns of its matches accordingly.
Every image belongs to a frame, and every camera to a rig: the mapper wants that for all images or for none.
"""

import logging
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from tqdm import tqdm

from lgbatch.config import Settings
from lgbatch.errors import DatabaseError, InputError
from lgbatch.store import FeatureStore, MatchStore
from lgbatch.types import FloatArray, IntArray, Pair, Workspace

if TYPE_CHECKING:
    import pycolmap

CameraMode = Literal["image", "folder", "single"]

_WAY_OUT = "delete the database to have it built anew, or use another workspace"
_SIDE_FILES = ("-wal", "-shm", "-journal")
_IMAGES_AT_ONCE = 32
_PAIRS_AT_ONCE = 5000  # a transaction's pages pass through the write-ahead log, which should stay small


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
class DatabaseCounts:
    """What one import added. All zero: the database held everything already and was not touched."""

    images: int = 0
    cameras: int = 0
    keypoints: int = 0
    pairs: int = 0
    matches: int = 0


def import_database(
    path: Path,
    image_folder: Path,
    features: FeatureSource,
    matches: MatchSource,
    *,
    camera_mode: CameraMode,
    camera_model: str,
    progress: bool = False,
) -> DatabaseCounts:
    """Bring the COLMAP database at `path` up to date with `features` and `matches`.

    Cameras, with EXIF focal lengths where there are any, are COLMAP's own reading of the photos. Images and
    pairs that the database holds already must equal the input and are left alone, two-view geometries too.
    Pairs without matches get no row. All is written to a copy, which replaces the database at the end: a
    failure leaves the database as it was, and where nothing is missing the file is not touched.

    Raises DatabaseError, naming the image or pair, when the input is unusable or differs from what the
    database holds, and InputError on an unknown camera model.
    """
    _check_camera_model(camera_model)
    groups = _camera_groups(features, image_folder, camera_mode)
    pairs = matches.pairs()
    _check_pairs(pairs, set(features.names()))
    try:
        with colmap_log_off(), _draft_of(path) as draft:
            before = _totals(draft)
            _add_images(draft, image_folder, groups, camera_mode, camera_model, progress)
            with open_database(draft) as db:
                ids = _check_cameras(db, features, groups, camera_model)
                lengths = _add_keypoints(db, features, ids)
                _add_matches(db, matches, pairs, ids, lengths, progress)
            counts = DatabaseCounts(*(b - a for a, b in zip(before, _totals(draft), strict=True)))
            if any(astuple(counts)):
                _replace(draft, path)
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise DatabaseError(f"cannot write {path}: {reason}; check free space and permissions") from error
    return counts


@contextmanager
def colmap_log_off() -> Iterator[None]:
    """Keep COLMAP's own lines off standard error, unless the logger `lgbatch` is set to DEBUG."""
    import pycolmap

    before = pycolmap.logging.minloglevel
    if not logging.getLogger("lgbatch").isEnabledFor(logging.DEBUG):
        pycolmap.logging.minloglevel = int(pycolmap.logging.FATAL)
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = before


def open_database(path: Path) -> "pycolmap.Database":
    """Open or make a database, to be used as a context manager. Raises DatabaseError where that fails."""
    import pycolmap

    try:
        return pycolmap.Database.open(path)
    except (RuntimeError, ValueError):
        raise DatabaseError(
            f"{path} is no COLMAP database, or in use: close other programs that use it, or {_WAY_OUT}"
        ) from None


def settle(path: Path) -> None:
    """Fold into the database the log that a killed program left. Raises DatabaseError while it is in use."""
    if not _side_files(path):
        return
    if not path.exists():  # a log without its database would be replayed into the next one
        _remove(path)
        return
    with suppress(DatabaseError):
        open_database(path).close()
    if _side_files(path):
        raise DatabaseError(f"{path} is open in another program (COLMAP?): close it there and run again")


@contextmanager
def _draft_of(path: Path) -> Iterator[Path]:
    """A copy of the database, or a new one, beside it; gone afterwards unless it was moved away."""
    draft = path.with_name(path.name + ".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove(draft)
    settle(path)
    try:
        if path.exists():
            shutil.copyfile(path, draft)
        try:
            open_database(draft).close()
        except DatabaseError:
            raise DatabaseError(f"{path} is no COLMAP database: {_WAY_OUT}") from None
        yield draft
    finally:
        _remove(draft)


def _replace(draft: Path, path: Path) -> None:
    with draft.open("rb+") as file:  # COLMAP writes with SQLite's synchronous=off
        os.fsync(file.fileno())
    settle(path)
    draft.replace(path)


def _side_files(path: Path) -> list[Path]:
    return [side for end in _SIDE_FILES if (side := path.with_name(path.name + end)).exists()]


def _remove(path: Path) -> None:
    for file in (path, *_side_files(path)):
        file.unlink(missing_ok=True)


def _totals(draft: Path) -> tuple[int, int, int, int, int]:
    with open_database(draft) as db:
        pairs = db.num_matched_image_pairs()
        return db.num_images(), db.num_cameras(), db.num_keypoints(), pairs, db.num_matches()


def _check_camera_model(camera_model: str) -> None:
    import pycolmap

    known = [name for name in pycolmap.CameraModelId.__members__ if name != "INVALID"]
    if camera_model not in known:
        raise InputError(f"unknown camera model '{camera_model}': use one of {', '.join(known)}")


def _camera_groups(features: FeatureSource, image_folder: Path, mode: CameraMode) -> dict[str, list[str]]:
    """Image names by what shares a camera, checked to exist and to be of one size in each group."""
    groups: dict[str, list[str]] = {}
    seen: set[str] = set()
    for name in features.names():
        if name in seen:
            raise DatabaseError(f"image {name} is twice in the features: extract them again")
        if not (image_folder / name).is_file():
            raise DatabaseError(f"image {name} has features but is not in {image_folder}: put it back there")
        seen.add(name)
        key = {"image": name, "folder": PurePosixPath(name).parent.as_posix(), "single": ""}[mode]
        group = groups.setdefault(key, [])
        group.append(name)
        size, first = features.image_size(name), features.image_size(group[0])
        if size != first:
            raise DatabaseError(
                f"image {name} ({size[0]}x{size[1]}) cannot share the camera of {group[0]} "
                f"({first[0]}x{first[1]}): use --camera-mode image"
            )
    if not groups:
        raise DatabaseError("no image has features: run `lgbatch extract` first")
    return groups


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


def _add_images(
    draft: Path,
    image_folder: Path,
    groups: dict[str, list[str]],
    mode: CameraMode,
    camera_model: str,
    progress: bool,
) -> None:
    """Have COLMAP add the images that the database lacks, one camera group after the other.

    COLMAP's own PER_FOLDER mode mixes up the cameras of nested folders, and in a later import both it and
    SINGLE make another camera.
    """
    import pycolmap

    with open_database(draft) as db:
        camera_of = {image.name: image.camera_id for image in db.read_all_images()}
    shared = mode != "image"
    kind = pycolmap.CameraMode.SINGLE if shared else pycolmap.CameraMode.PER_IMAGE
    units = list(groups.values()) if shared else [[name for group in groups.values() for name in group]]
    missing = [[name for name in unit if name not in camera_of] for unit in units]
    with tqdm(total=sum(map(len, missing)), desc="cameras", unit="img", disable=None if progress else True) as bar:
        for unit, names in zip(units, missing, strict=True):
            camera_id = next((camera_of[name] for name in unit if name in camera_of), -1)
            for start in range(0, len(names), _IMAGES_AT_ONCE):
                batch = names[start : start + _IMAGES_AT_ONCE]
                options = pycolmap.ImageReaderOptions(
                    camera_model=camera_model, existing_camera_id=camera_id if shared else -1
                )
                pycolmap.import_images(draft, image_folder, kind, batch, options)
                camera_id = _camera_of_imported(draft, batch)
                bar.update(len(batch))


def _camera_of_imported(draft: Path, batch: Sequence[str]) -> int:
    """Check that no image was skipped, which import_images does without raising; the first one's camera."""
    with open_database(draft) as db:
        images = [db.read_image_with_name(name) for name in batch]
    for name, image in zip(batch, images, strict=True):
        if image is None:
            raise DatabaseError(
                f"COLMAP cannot read image {name}, or it is no longer of the size that features were "
                "extracted from: save it again as JPEG or PNG, or remove it, and extract again"
            )
    return next(image.camera_id for image in images if image)


def _check_cameras(
    db: "pycolmap.Database", features: FeatureSource, groups: dict[str, list[str]], camera_model: str
) -> dict[str, int]:
    """Image ids by name. Raises DatabaseError where the cameras are not what this input asks for."""
    cameras = {camera.camera_id: camera for camera in db.read_all_cameras()}
    images = {image.name: image for image in db.read_all_images()}
    for image in images.values():
        if not image.has_frame_id():
            raise DatabaseError(f"image {image.name} of the database has no frame, as in old COLMAP: {_WAY_OUT}")
    group_of_camera: dict[int, str] = {}
    for key, names in groups.items():
        for name in names:
            camera = cameras[images[name].camera_id]
            size, wanted = (camera.width, camera.height), features.image_size(name)
            if size != wanted:
                raise DatabaseError(
                    f"image {name} is {size[0]}x{size[1]} to COLMAP but its features are of "
                    f"{wanted[0]}x{wanted[1]}: extract it again; if it was replaced, {_WAY_OUT}"
                )
            if camera.model_name != camera_model:
                raise DatabaseError(
                    f"image {name} has camera model {camera.model_name} in the database: "
                    f"use --camera-model {camera.model_name}, or {_WAY_OUT}"
                )
            one_camera = images[names[0]].camera_id == camera.camera_id
            if not one_camera or group_of_camera.setdefault(camera.camera_id, key) != key:
                raise DatabaseError(f"image {name} was imported with another --camera-mode: {_WAY_OUT}")
    return {name: images[name].image_id for names in groups.values() for name in names}


def _add_keypoints(db: "pycolmap.Database", features: FeatureSource, ids: dict[str, int]) -> dict[str, int]:
    """Write what is missing, compare what is there; the number of keypoints by image name."""
    import pycolmap

    lengths = {}
    with pycolmap.DatabaseTransaction(db):
        for name, image_id in ids.items():
            keypoints = features.keypoints(name)
            if keypoints.ndim != 2 or keypoints.shape[1] != 2 or not np.isfinite(keypoints).all():
                raise DatabaseError(f"the keypoints of image {name} are not (N, 2) finite numbers: extract it again")
            lengths[name] = len(keypoints)
            keypoints = np.ascontiguousarray(keypoints, np.float32) + np.float32(0.5)
            if not db.exists_keypoints(image_id):
                db.write_keypoints(image_id, keypoints)
            elif not np.array_equal(db.read_keypoints(image_id), keypoints):
                raise DatabaseError(f"image {name} has other keypoints in the database: {_WAY_OUT}")
    return lengths


def _add_matches(
    db: "pycolmap.Database",
    matches: MatchSource,
    pairs: Sequence[Pair],
    ids: dict[str, int],
    lengths: dict[str, int],
    progress: bool,
) -> None:
    import pycolmap

    with tqdm(total=len(pairs), desc="database", unit="pair", disable=None if progress else True) as bar:
        for start in range(0, len(pairs), _PAIRS_AT_ONCE):
            batch = pairs[start : start + _PAIRS_AT_ONCE]
            with pycolmap.DatabaseTransaction(db):
                for pair in batch:
                    indices = matches.indices(pair)
                    _check_indices(pair, indices, lengths)
                    a, b = ids[pair.a], ids[pair.b]
                    if db.exists_matches(a, b):
                        if not np.array_equal(db.read_matches(a, b), indices):
                            raise DatabaseError(f"pair {pair.a} {pair.b} has other matches in the database: {_WAY_OUT}")
                    elif len(indices):
                        db.write_matches(a, b, indices.astype(np.uint32))
            bar.update(len(batch))


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


@dataclass(frozen=True)
class _StoredMatches:
    """The matches of some images, as import_database takes them."""

    store: MatchStore
    names: Sequence[str]

    def pairs(self) -> Sequence[Pair]:
        return self.store.pairs(self.names)

    def indices(self, pair: Pair) -> IntArray:
        return self.store.read(pair).indices


@dataclass(frozen=True)
class _StoredFeatures:
    """The keypoints of some images, as import_database takes them."""

    store: FeatureStore
    chosen: Sequence[str]

    def names(self) -> Sequence[str]:
        return self.chosen

    def keypoints(self, name: str) -> FloatArray:
        return self.store.keypoints(name)

    def image_size(self, name: str) -> tuple[int, int]:
        return self.store.image_size(name)


def import_stores(workspace: Workspace, image_folder: Path, names: Sequence[str], settings: Settings) -> DatabaseCounts:
    """Bring a workspace's database up to date with its stores, for the images `names`. Raises as import_database."""
    with FeatureStore(workspace.features) as features, MatchStore(workspace.matches) as matches:
        return import_database(
            workspace.database,
            image_folder,
            _StoredFeatures(features, names),
            _StoredMatches(matches, names),
            camera_mode=settings.camera_mode,
            camera_model=settings.camera_model,
            progress=sys.stderr.isatty(),
        )
