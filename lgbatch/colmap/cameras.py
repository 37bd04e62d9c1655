"""Images and cameras into a COLMAP database: who shares a camera, and where its first focal length comes from.

Every image belongs to a frame, and every camera to a rig: the mapper wants that for all images or for none.
"""

from collections.abc import Callable, Hashable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from tqdm import tqdm

from lgbatch.colmap.exif import Exif, read_exif
from lgbatch.colmap.rows import add_camera, add_image
from lgbatch.colmap.sqlite import WAY_OUT
from lgbatch.errors import DatabaseError

if TYPE_CHECKING:
    import pycolmap

CameraMode = Literal["auto", "image", "folder", "single"]
"""Who shares a camera: nobody ('image'), the photos of one folder, or all ('single'); or what the photos tell.

'auto': photos of one make, model, focal length and size share a camera, whatever folder they are in, as in COLMAP's
own AUTO. The others, which mostly went through a program that drops EXIF, share one in each folder where all of them
have one size (and one EXIF focal length, if any); where sizes are mixed, as in collections from the internet, each
gets its own. Two cameras of one make and model are one to it.
"""
Sizes = dict[str, tuple[int, int]]
"""(width, height) by image name."""
_KEYS: dict[str, Callable[[str], Hashable]] = {
    "image": lambda name: name,
    "folder": lambda name: PurePosixPath(name).parent,
    "single": lambda name: None,
}


def add_images(
    db: "pycolmap.Database",
    image_folder: Path,
    sizes: Sizes,
    mode: CameraMode,
    camera_model: str,
    progress: bool = False,
) -> dict[str, int]:
    """Write the images of `sizes` that the database lacks, with their cameras; the ids of all by name.

    COLMAP's import_images is not asked: it skips what it cannot read, shares nothing without EXIF, makes a
    second camera in a later import, and in nested folders mixes up the cameras of PER_FOLDER.

    Raises DatabaseError where the images and cameras of the database are not what the photos and the mode ask for.
    """
    cameras = {camera.camera_id: camera for camera in db.read_all_cameras()}
    camera_of, everything = {}, dict(sizes)
    for image in db.read_all_images():
        if not image.has_frame_id():
            raise DatabaseError(f"image {image.name} of the database has no frame, as in old COLMAP: {WAY_OUT}")
        camera_of[image.name] = image.camera_id
        camera = cameras[image.camera_id]
        everything.setdefault(image.name, (camera.width, camera.height))
    exif = _read_photos(image_folder, everything, camera_of, mode, progress)
    groups = _camera_groups(everything, exif, mode)
    camera_for: dict[str, int] = {}
    for names in groups:
        camera_id = next((camera_of[name] for name in names if name in camera_of), None)
        if camera_id is None:
            camera_id = add_camera(db, camera_model, everything[names[0]], exif[names[0]].focal)
        camera_for |= dict.fromkeys(names, camera_id)
    for name in sizes:
        if name not in camera_of:
            add_image(db, name, camera_for[name], exif[name].position)
    ids = _check_images(db, everything, groups, mode, camera_model)
    return {name: ids[name] for name in sizes}


def _read_photos(
    image_folder: Path, sizes: Sizes, camera_of: dict[str, int], mode: CameraMode, progress: bool
) -> dict[str, Exif]:
    """EXIF of the images that the database lacks and, to share by it, of one image of each camera that it has.

    An image of the database is taken for one without EXIF when no photo of its camera is there any more.
    """
    first_of: dict[int, str] = {}
    for name in sizes:
        if name in camera_of and (image_folder / name).is_file():
            first_of.setdefault(camera_of[name], name)
    wanted = [name for name in sizes if name not in camera_of]
    if mode == "auto":
        wanted += first_of.values()
    exif = {}
    for name in tqdm(wanted, desc="cameras", unit="img", disable=None if progress else True):
        exif[name] = read_exif(image_folder / name)
        _check_size(name, exif[name].size or sizes[name], sizes[name])
    if mode == "auto":
        read = {camera: exif[name] for camera, name in first_of.items()}
        exif |= {name: read.get(camera, Exif()) for name, camera in camera_of.items()}
    return exif


def _camera_groups(sizes: Sizes, exif: dict[str, Exif], mode: CameraMode) -> list[list[str]]:
    """Image names by what shares a camera. Raises DatabaseError where a group has several sizes."""
    key = _auto_key(sizes, exif) if mode == "auto" else _KEYS[mode]
    groups: dict[Hashable, list[str]] = {}
    for name, size in sizes.items():
        group = groups.setdefault(key(name), [])
        group.append(name)
        first = sizes[group[0]]
        if size != first:
            raise DatabaseError(
                f"image {name} ({size[0]}x{size[1]}) cannot share the camera of {group[0]} "
                f"({first[0]}x{first[1]}): use --camera-mode auto"
            )
    return list(groups.values())


def _auto_key(sizes: Sizes, exif: dict[str, Exif]) -> Callable[[str], Hashable]:
    """What two images have in common when they share a camera in mode 'auto' (see CameraMode)."""
    kinds: dict[Hashable, set[object]] = {}
    for name, size in sizes.items():
        if exif[name].camera is None:
            kinds.setdefault(_KEYS["folder"](name), set()).add((size, exif[name].focal))

    def key(name: str) -> Hashable:
        folder = _KEYS["folder"](name)
        if exif[name].camera is not None:
            return "camera", exif[name].camera
        return ("folder", folder) if len(kinds[folder]) == 1 else ("image", name)

    return key


def _check_size(name: str, size: tuple[int, int], wanted: tuple[int, int]) -> None:
    if size != wanted:
        raise DatabaseError(
            f"image {name} is {size[0]}x{size[1]} to COLMAP but its features are of "
            f"{wanted[0]}x{wanted[1]}: extract it again; if it was replaced, {WAY_OUT}"
        )


def _check_images(
    db: "pycolmap.Database",
    sizes: Sizes,
    groups: list[list[str]],
    mode: CameraMode,
    camera_model: str,
) -> dict[str, int]:
    """Image ids by name. Raises DatabaseError where images and cameras are not what this input asks for."""
    cameras = {camera.camera_id: camera for camera in db.read_all_cameras()}
    images = {image.name: image for image in db.read_all_images()}
    group_of_camera: dict[int, list[str]] = {}
    for names in groups:
        for name in names:
            camera = cameras[images[name].camera_id]
            _check_size(name, (camera.width, camera.height), sizes[name])
            if camera.model_name != camera_model:
                raise DatabaseError(
                    f"image {name} has camera model {camera.model_name} in the database: "
                    f"use --camera-model {camera.model_name}, or {WAY_OUT}"
                )
            one_camera = images[names[0]].camera_id == camera.camera_id
            if not one_camera or group_of_camera.setdefault(camera.camera_id, names) is not names:
                raise DatabaseError(
                    f"image {name} shares its camera in the database with other images than --camera-mode {mode} "
                    f"asks for, because of another mode then or of other photos since: {WAY_OUT}"
                )
    return {name: images[name].image_id for name in sizes}
