"""A model with the paths of its photos, as the formats are written from it."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from lgbatch.errors import InputError
from lgbatch.interchange.source import ModelSource
from lgbatch.reconstruction.evaluation.formats.colmap_model import read_model

if TYPE_CHECKING:
    import pycolmap


@dataclass(frozen=True)
class Scene:
    """A model to write, and its folder of photos."""

    model: "pycolmap.Reconstruction"
    photos: Path

    @classmethod
    def of(cls, source: ModelSource) -> "Scene":
        """Read the model. Raises InputError if it is damaged or empty, or its photos are missing or mirrored."""
        scene = cls(read_model(source.model), source.photo_folder())
        if not scene.images():
            raise InputError(f"{source.model} has no registered images: give another model")
        if not any((scene.photos / image.name).is_file() for image in scene.images()):
            raise InputError(f"no photo of {source.model} is in {scene.photos}: give their folder with --images")
        if mirrored := [image.name for image in scene.images() if image.name in source.mirrored]:
            raise InputError(
                f"the stored pixels of {mirrored[0]} are mirrored, unlike the camera of the model: run "
                "`lgbatch undistort` and convert its folder"
            )
        return scene

    def images(self) -> "list[pycolmap.Image]":
        """The registered images, by name."""
        return sorted((i for i in self.model.images.values() if i.has_pose), key=lambda image: image.name)

    def path(self, name: str, folder: Path) -> str:
        """The path of a photo from a folder, with forward slashes; absolute if they are on different drives."""
        return relative_path(self.photos / name, folder)

    def masks(self) -> dict[str, Path]:
        """The undistorted masks of the images by name; empty unless each has one."""
        folder = self.photos.parent / "masks"
        masks = {image.name: folder / f"{image.name}.png" for image in self.images()}
        return masks if all(mask.is_file() for mask in masks.values()) else {}

    def points(self) -> "Iterator[tuple[int, pycolmap.Point3D]]":
        """The points with their ids, in order."""
        for point_id in sorted(self.model.point3D_ids()):
            yield point_id, self.model.points3D[point_id]


def relative_path(path: Path, folder: Path) -> str:
    """The path from a folder, with forward slashes; absolute if they are on different drives."""
    try:
        return PurePath(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    except ValueError:
        return path.resolve().as_posix()
