"""The model that a command is given, and the photos that belong to it."""

from dataclasses import dataclass, field
from pathlib import Path

from lgbatch.errors import InputError
from lgbatch.photos.coordinates import is_mirrored
from lgbatch.photos.masks import crawl_with_masks
from lgbatch.reconstruction.evaluation.formats.colmap_model import is_model
from lgbatch.reconstruction.model_folders import numbered_models
from lgbatch.storage.features import FeatureStore
from lgbatch.workspace.folder import Workspace
from lgbatch.workspace.stage_cache import recorded_settings

_MODELS = "sparse", "georeferenced", "triangulated"
"""Folders of a workspace that have models."""
_UNDISTORTED = "images"
"""Folder of the photos of an undistorted model, beside sparse/."""


@dataclass(frozen=True)
class ModelSource:
    """A COLMAP model, and where its photos are."""

    model: Path
    """Folder of the model."""
    workspace: Path | None
    """The workspace that the model is of; None for a model of another program."""
    photos: Path | None
    """Folder of the photos; None if it is unknown."""
    mirrored: frozenset[str] = field(default=frozenset(), repr=False)
    """Images whose stored pixels are mirrored: the model has them mirrored back, left and right."""

    def photo_folder(self) -> Path:
        """The folder of the photos. Raises InputError if it is unknown or missing."""
        if self.photos is None:
            raise InputError(f"the photos of {self.model} are unknown: give their folder with --images")
        if not self.photos.is_dir():
            raise InputError(f"there is no folder {self.photos}: give the folder of the photos with --images")
        return self.photos

    def masks(self, folder: str, camera_mask: str) -> dict[str, tuple[Path, ...]]:
        """The masks of the photos by name, as extraction was given them unless they are given here; empty if none.

        Raises InputError as crawl_with_masks.
        """
        recorded = recorded_settings(self.workspace) if self.workspace else {}
        if not folder and not camera_mask:
            folder, camera_mask = recorded.get("masks", ""), recorded.get("camera_mask", "")
        if not folder and not camera_mask:
            return {}
        return {ref.name: ref.masks for ref in crawl_with_masks(self.photo_folder(), folder, camera_mask).images}


def find_source(path: Path, number: int | None = None, images: Path | None = None) -> ModelSource:
    """Find the model that `path` means, and its photos, which are in the folder `images` if that is given.

    `path` is a folder with a model, or a workspace or another folder with sparse/: then the model sparse/`number` or,
    without a number, the one with most images is meant. Raises InputError if there is none.
    """
    model = _model_in(path, number)
    workspace = _workspace_of(model)
    photos, mirrored = images, frozenset[str]()
    if workspace and Workspace(workspace).features.is_file():
        with FeatureStore(Workspace(workspace).features) as features:
            photos = photos or features.image_folder
            mirrored = frozenset(name for name in features.names() if is_mirrored(features.orientation(name)))
    elif workspace and (workspace / _UNDISTORTED).is_dir():
        photos = photos or workspace / _UNDISTORTED
    return ModelSource(model, workspace, photos, mirrored)


def _model_in(path: Path, number: int | None) -> Path:
    if is_model(path) and number is None:
        return path
    sparse = next((folder for folder in (Workspace(path).sparse, path) if numbered_models(folder)), None)
    if number is not None:
        chosen = (sparse or Workspace(path).sparse) / str(number)
        if is_model(chosen):
            return chosen
        present = ", ".join(sorted((folder.name for folder in numbered_models(sparse or path)), key=int))
        raise InputError(f"there is no model {chosen}: give --model one of {present or 'a workspace with models'}")
    models = [folder for folder in numbered_models(sparse) if is_model(folder)] if sparse else []
    if not models:
        raise InputError(f"no COLMAP model in {path}: give a workspace, or the folder with cameras.bin, as sparse/0")
    return max(models, key=lambda folder: (_image_count(folder), -int(folder.name)))


def _image_count(model: Path) -> int:
    """The number of images of a model, from the first bytes of its file; 0 of a text model."""
    try:
        with (model / "images.bin").open("rb") as file:
            return int.from_bytes(file.read(8), "little")
    except OSError:
        return 0


def _workspace_of(model: Path) -> Path | None:
    """The folder whose folder of models has the model."""
    absolute = model.absolute()
    return next((folder.parent for folder in (absolute, *absolute.parents[:2]) if folder.name in _MODELS), None)
