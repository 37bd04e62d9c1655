"""Models in the formats of other programs."""

from pathlib import Path
from typing import Literal

from lgbatch.errors import WorkspaceError
from lgbatch.interchange.formats.bundler import write_bundler
from lgbatch.interchange.formats.metashape import write_metashape
from lgbatch.interchange.formats.nerfstudio import write_nerfstudio
from lgbatch.interchange.formats.scene import Scene
from lgbatch.interchange.source import ModelSource
from lgbatch.interchange.stores import Converted
from lgbatch.runtime.packages import require_pycolmap

ModelFormat = Literal["nerfstudio", "metashape", "bundler"]
_WRITERS = {"nerfstudio": write_nerfstudio, "metashape": write_metashape, "bundler": write_bundler}


def export_model(source: ModelSource, folder: Path, kind: ModelFormat) -> Converted:
    """Write a model to `folder`, for a program that reads the photos where they are.

    Raises InputError if the format cannot hold the cameras, and WorkspaceError if a file cannot be written.
    """
    require_pycolmap()
    scene = Scene.of(source)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = _WRITERS[kind](scene, folder)
    except OSError as error:
        raise WorkspaceError(f"cannot write to {folder}: {error.strerror or error}; check free space") from None
    return Converted(tuple(files), len(scene.images()))
