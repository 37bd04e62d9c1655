"""Add images and their cameras to a COLMAP database: which images share a camera, and its initial focal length.

Every image gets a frame and every camera a rig: the mapper requires them for all images or for none.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

import numpy as np

from lgbatch.colmap.sensors.calibration import Calibration, KnownCamera
from lgbatch.colmap.sensors.exif import Exif, read_exif
from lgbatch.colmap.sensors.rigs import Rigs
from lgbatch.colmap.sensors.rows import add_camera, add_image, new_camera
from lgbatch.colmap.sqlite import REBUILD_HINT
from lgbatch.errors import DatabaseError
from lgbatch.workspace.progress import track

if TYPE_CHECKING:
    import pycolmap

CameraMode = Literal["auto", "image", "folder", "single"]
"""Which images share a camera: none ('image'), those in one folder ('folder'), all ('single'), or by EXIF ('auto').

'auto': photos with equal EXIF make, model, focal length and size share a camera across folders, as in COLMAP's AUTO
mode; two cameras of the same make and model count as one. Photos without make and model, mostly re-encoded by a program
that drops EXIF, share one camera per folder if all such photos in it have the same size and the same EXIF focal length
(or none); portrait and landscape photos of one size share one each. Otherwise, as in internet photo collections, each
gets its own camera.

Five photos or more that their EXIF orientation turns upright alike do not share the camera of others, nor do photos
without make and model that are turned alike: a program may have turned their pixels, and with them the principal point.
The cameras are then those of the upright photos.
"""
Sizes = dict[str, tuple[int, int]]
"""(width, height) by image name."""
_MIN_TURNED = 5
"""Photos that are turned alike, to have a camera of their own: fewer do not determine a principal point."""
_KEYS: dict[str, Callable[[str], Hashable]] = {
    "image": lambda name: name,
    "folder": lambda name: PurePosixPath(name).parent,
    "single": lambda name: None,
}
"""Images with equal keys share a camera."""


@dataclass(frozen=True)
class CameraChoice:
    """Which images share a camera, and what is known of the cameras."""

    mode: CameraMode
    model: str
    """COLMAP camera model of the cameras that the calibration lacks."""
    calibration: Calibration | None = None
    rigs: Rigs | None = None
    """The images of a camera of a rig share it, whatever the mode. Its intrinsics come before the calibration."""
    gravity: bool = True
    """Whether the EXIF orientation tells the direction of gravity."""
    turns: Mapping[str, int] = field(default_factory=dict)
    """How images are turned upright: EXIF codes by name."""

    def known(self, name: str) -> KnownCamera | None:
        """Return the given intrinsics of an image, or None. Raises InputError if the calibration lacks them."""
        in_rig = self.rigs.known_camera(name) if self.rigs else None
        return in_rig or (self.calibration.camera(name) if self.calibration else None)

    def new(self, name: str, size: tuple[int, int], exif: Exif) -> "pycolmap.Camera":
        """Return the camera of an image and of those that share it. Raises InputError if the calibration lacks it."""
        known = self.known(name)
        return known.at(name, size) if known else new_camera(self.model, size, exif.focal)

    def key(self, sizes: Sizes, exif: dict[str, Exif]) -> Callable[[str], Hashable]:
        """Return a function of the image name that is equal for images that share a camera."""
        places = self.rigs.places(sizes) if self.rigs else {}
        key = self._key_without_rigs(sizes, exif)
        return lambda name: ("rig", places[name].camera) if name in places else key(name)

    def _key_without_rigs(self, sizes: Sizes, exif: dict[str, Exif]) -> Callable[[str], Hashable]:
        if self.calibration and self.calibration.shares_cameras:
            calibration = self.calibration
            return lambda name: (calibration.camera(name), sizes[name])
        return _auto_key(sizes, exif, self.turns) if self.mode == "auto" else _KEYS[self.mode]


def add_images(
    db: "pycolmap.Database",
    image_folder: Path,
    sizes: Sizes,
    choice: CameraChoice,
    *,
    exact: bool = False,
    keep_cameras: bool = False,
    progress: bool = False,
) -> tuple[dict[str, int], dict[str, int]]:
    """Write the images of `sizes` that the database lacks, with their cameras, rigs and frames.

    With `keep_cameras`, images in the database keep their cameras, whatever their models and how they are shared.
    Returns the ids of all of them by name, and the counts of rigs and frames, as Rigs.apply; empty without rigs.

    pycolmap.import_images is not used: it skips photos that it cannot read, shares no camera without EXIF, creates a
    second camera in a later import, and mixes up the cameras of nested folders in mode PER_FOLDER.

    Raises DatabaseError if images or cameras in the database disagree with the photos or with `choice`; the intrinsics
    of stored cameras are compared if they are calibrated, and with `exact`. Raises InputError if the calibration or the
    rigs do not fit the photos.
    """
    cameras = {camera.camera_id: camera for camera in db.read_all_cameras()}
    stored: dict[str, int] = {}  # camera id by name of the images in the database
    all_sizes = dict(sizes)
    for image in db.read_all_images():
        if not image.has_frame_id():
            raise DatabaseError(
                f"image {image.name} in the database has no frame, as written by old versions of COLMAP: {REBUILD_HINT}"
            )
        stored[image.name] = image.camera_id
        camera = cameras[image.camera_id]
        all_sizes.setdefault(image.name, (camera.width, camera.height))
    every = choice.mode == "auto" or exact
    exif = _read_exif(image_folder, all_sizes, stored, every, progress)
    groups = _camera_groups(all_sizes, choice.key(all_sizes, exif))
    camera_ids: dict[str, int] = {}
    for names in groups:
        camera_id = next((stored[name] for name in names if name in stored), None)
        if camera_id is None:
            camera_id = add_camera(db, choice.new(names[0], all_sizes[names[0]], exif[names[0]]))
        elif exact or choice.calibration or choice.rigs:
            expected = choice.new(names[0], all_sizes[names[0]], exif.get(names[0], Exif()))
            _check_intrinsics(names[0], cameras[camera_id], expected)
        camera_ids |= dict.fromkeys(names, camera_id)
    for name in sizes:
        if name not in stored:
            gravity = exif[name].gravity if choice.gravity else None
            add_image(db, name, camera_ids[name], exif[name].position, gravity)
    image_ids = _check_images(db, all_sizes, groups, None if keep_cameras else choice)
    rigs = choice.rigs.apply(db, stored) if choice.rigs else {}
    return {name: image_ids[name] for name in sizes}, rigs


def _read_exif(
    image_folder: Path, sizes: Sizes, stored: dict[str, int], every: bool, progress: bool
) -> dict[str, Exif]:
    """EXIF by name of the images that the database lacks and, with `every`, also of those that it has.

    `stored` maps the images in the database to their camera ids. Of each stored camera one photo is read, whose EXIF
    stands for all images of the camera. If none of its photos exists any more, they count as images without EXIF.
    """
    representatives: dict[int, str] = {}
    for name in sizes:
        if name in stored and (image_folder / name).is_file():
            representatives.setdefault(stored[name], name)
    names = [name for name in sizes if name not in stored]
    if every:
        names += representatives.values()
    exif = {}
    found = zip(names, read_exif([image_folder / name for name in names]), strict=True)
    for name, exif[name] in track(found, "cameras", total=len(names), unit="image", shown=progress):
        _check_size(name, exif[name].size or sizes[name], sizes[name])
    if every:
        by_camera = {camera_id: exif[name] for camera_id, name in representatives.items()}
        exif |= {name: by_camera.get(camera_id, Exif()) for name, camera_id in stored.items()}
    return exif


def _camera_groups(sizes: Sizes, key: Callable[[str], Hashable]) -> list[list[str]]:
    """Group the image names by shared camera. Raises DatabaseError if the images of a group differ in size."""
    groups: dict[Hashable, list[str]] = {}
    for name, size in sizes.items():
        group = groups.setdefault(key(name), [])
        group.append(name)
        expected = sizes[group[0]]
        if size != expected:
            raise DatabaseError(
                f"image {name} ({size[0]}x{size[1]}) cannot share the camera of {group[0]} "
                f"({expected[0]}x{expected[1]}): use --camera-mode auto"
            )
    return list(groups.values())


def _auto_key(sizes: Sizes, exif: dict[str, Exif], turns: Mapping[str, int]) -> Callable[[str], Hashable]:
    """Return the grouping key of mode 'auto' (see CameraMode)."""
    variants: dict[Hashable, set[object]] = {}  # by folder: sides and focal lengths of the photos without a camera name
    for name, size in sizes.items():
        if exif[name].camera is None:
            variants.setdefault(_KEYS["folder"](name), set()).add((min(size), max(size), exif[name].focal))

    def shared(name: str) -> Hashable:
        folder = _KEYS["folder"](name)
        if exif[name].camera is not None:
            return "camera", exif[name].camera
        return ("folder", folder, sizes[name]) if len(variants[folder]) == 1 else ("image", name)

    def turned(name: str) -> tuple[Hashable, int]:
        turn = turns.get(name, 1)
        return shared(name), turn if exif[name].camera is None or exif[name].orientation == turn else 1

    counts = Counter(map(turned, sizes))
    return lambda name: turned(name) if counts[turned(name)] >= _MIN_TURNED else shared(name)


def _check_size(name: str, size: tuple[int, int], expected: tuple[int, int]) -> None:
    """Raise DatabaseError if COLMAP's (width, height) of an image is not the `expected` one of its features."""
    if size != expected:
        raise DatabaseError(
            f"image {name} is {size[0]}x{size[1]} in COLMAP, but its features are from a {expected[0]}x{expected[1]} "
            f"image: extract it again; if the photo was replaced, {REBUILD_HINT}"
        )


def _check_intrinsics(name: str, stored: "pycolmap.Camera", expected: "pycolmap.Camera") -> None:
    """Raise DatabaseError if a stored camera has other initial parameters than `expected`."""
    if stored.model != expected.model:
        return  # _check_images tells
    same_prior = stored.has_prior_focal_length == expected.has_prior_focal_length
    if not same_prior or not np.array_equal(stored.params, expected.params):
        raise DatabaseError(
            f"the camera of image {name} has other parameters in the database ({stored.params_to_string()}, now "
            f"{expected.params_to_string()}): {REBUILD_HINT}"
        )


def _check_images(
    db: "pycolmap.Database", sizes: Sizes, groups: list[list[str]], choice: CameraChoice | None
) -> dict[str, int]:
    """Return the image ids by name. Raises DatabaseError if size, model or sharing of a camera is not as expected.

    Without a `choice`, only sizes are compared.
    """
    cameras = {camera.camera_id: camera for camera in db.read_all_cameras()}
    images = {image.name: image for image in db.read_all_images()}
    group_of_camera: dict[int, list[str]] = {}
    for names in groups:
        known = choice.known(names[0]) if choice else None
        model = known.model if known else choice.model if choice else ""
        for name in names:
            camera = cameras[images[name].camera_id]
            _check_size(name, (camera.width, camera.height), sizes[name])
            if choice is None:
                continue
            if camera.model_name != model:
                raise DatabaseError(
                    f"image {name} has camera model {camera.model_name} in the database: "
                    f"use --camera-model {camera.model_name}, or {REBUILD_HINT}"
                )
            one_camera = images[names[0]].camera_id == camera.camera_id
            if not one_camera or group_of_camera.setdefault(camera.camera_id, names) is not names:
                raise DatabaseError(
                    f"image {name} does not share its camera in the database as --camera-mode {choice.mode} requires; "
                    f"the mode or the photos have changed since: {REBUILD_HINT}"
                )
    return {name: images[name].image_id for name in sizes}
