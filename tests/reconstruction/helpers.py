"""Helpers that the reconstruction tests share."""

from pathlib import Path
from typing import Any

from lgbatch.colmap.database import import_database
from lgbatch.config import Settings
from lgbatch.reconstruction.reconstruct import reconstruct
from lgbatch.reconstruction.results import Reconstruction
from lgbatch.workspace.rerun import Rerun
from tests.helpers.synthetic import Source


def fill(folder: Path, source: Source) -> Path:
    """Import `source` into the database of `folder` and return its path."""
    path = folder / "database.db"
    import_database(path, folder / "images", source, source, camera_mode="auto", camera_model="SIMPLE_RADIAL")
    return path


def run(folder: Path, **options: Any) -> Reconstruction:
    return reconstruct(folder / "database.db", folder / "images", folder / "sparse", settings=Settings(**options))


def rerun(**settings: Any) -> Rerun:
    """`lgbatch run photos -o out` with these settings."""
    return Rerun(settings=Settings(**settings), photos=Path("photos"), workspace=Path("out"))


def poses(folder: Path) -> dict[str, bytes]:
    """The bytes of camera_from_world of the images in the largest model, by name."""
    import pycolmap

    model = pycolmap.Reconstruction(folder / "sparse" / "0")
    return {i.name: i.cam_from_world().matrix().tobytes() for i in model.images.values()}


def write_old_models(folder: Path) -> Path:
    """Write two numbered models and a folder of the user into `folder`/sparse."""
    sparse = folder / "sparse"
    for name in ("0", "7", "mine"):
        (sparse / name).mkdir(parents=True)
        (sparse / name / "notes.txt").write_text(name)
    return sparse
