"""The folders and photos that a call means."""

import os
from pathlib import Path

from lgbatch.errors import InputError, ModelError
from lgbatch.runtime.registry import default_folder
from lgbatch.storage.features import FeatureStore


def photo_folder(photos: str | Path | None, features: FeatureStore) -> Path:
    """The folder of the photos: as given, or as features.h5 records it. Raises InputError if there is none."""
    folder = Path(photos) if photos else features.image_folder
    if folder is None:
        raise InputError(f"{features.path} does not record the folder of the photos: give it with --images")
    if not folder.is_dir():
        raise InputError(f"the folder of the photos, {folder}, does not exist: give their folder with --images")
    return folder


def models_folder(models: str | Path | None) -> Path:
    """The folder of the ONNX models: as given, or the default one. Raises ModelError without a home folder."""
    return Path(models) if models else default_folder()


def default_models() -> Path | None:
    """The default folder of the models; None without a home folder."""
    try:
        return Path(os.path.abspath(default_folder()))  # noqa: PTH100  as recorded_paths has it
    except ModelError:
        return None


def present_photos(names: list[str], folder: Path) -> list[str]:
    """The images whose photo is in the folder. Raises InputError if there is none."""
    if not names:
        raise InputError("features.h5 has no images: extract photos; `lgbatch errors` lists those that failed")
    present = [name for name in names if (folder / name).is_file()]
    if not present:
        raise InputError(f"no image of features.h5 is in {folder}: give their folder with --images, or extract again")
    return present
