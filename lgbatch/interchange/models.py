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
_FILES = {"nerfstudio": "transforms.json", "metashape": "cameras.xml", "bundler": "bundle.out"}
"""The file with the cameras of each format."""


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


def set_aside_exports(folder: Path) -> list[str]:
    """Rename the files with cameras that `export_model` has written to a folder, and that its next model makes stale.

    NAME becomes NAME.old, and replaces an earlier one. Returns a line for each, with the command that writes it anew.
    """
    lines = []
    for kind, name in _FILES.items():
        if (folder / name).is_file():
            (folder / name).replace(folder / f"{name}.old")
            lines.append(
                f"{folder / name} was of the model before, and is {name}.old now: `lgbatch convert {folder} -o "
                f"{folder} --to {kind}` writes it anew"
            )
    return lines
