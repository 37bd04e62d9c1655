"""The mapping of a database and what follows it, as the commands reconstruct and refine."""

import os
from pathlib import Path
from typing import Any

from lgbatch.api.matching import photo_folder
from lgbatch.config import Settings
from lgbatch.errors import ModelError
from lgbatch.pipelines.second_try import after_second_try
from lgbatch.pipelines.settings import as_settings
from lgbatch.pipelines.summary import Summary
from lgbatch.reconstruction.reconstruct import reconstruct as reconstruct_database
from lgbatch.reconstruction.refined_database import write_refined_database as write_copy
from lgbatch.reconstruction.refinement.refine import refine as refine_models
from lgbatch.runtime.registry import default_folder
from lgbatch.storage.features import FeatureStore
from lgbatch.workspace.folder import Workspace
from lgbatch.workspace.lock import locked
from lgbatch.workspace.rerun import Rerun


def reconstruct(
    workspace: str | Path, *, photos: str | Path | None = None, settings: Settings | None = None, **changes: Any
) -> Summary:
    """Verify the pairs of database.db, map its images into sparse/, and refine the models, as `lgbatch reconstruct`.

    The parameters are those of `match`. Images that are not registered are in the summary's `unregistered`, with the
    reason. Raises LgbatchError if there is no database, or COLMAP fails.
    """
    workspace, settings = Path(workspace), as_settings(settings, changes)
    summary, files = Summary(settings, ("reconstruct", "refine")), Workspace(workspace)
    with locked(workspace):
        with FeatureStore(files.features) as features:
            folder = photo_folder(photos, features)
        rerun = Rerun.of_steps(
            settings, folder, workspace, photos_given=photos is not None, default_models=_default_models()
        )
        done = reconstruct_database(files.database, folder, files.sparse, settings=rerun.settings, progress=True)
        summary.add_reconstruction(after_second_try(done, files, folder), rerun)
        if done.models:
            summary.add_refinement(refine_models(files, folder, rerun.settings, progress=True))
    return summary


def refine(
    workspace: str | Path, *, photos: str | Path | None = None, settings: Settings | None = None, **changes: Any
) -> Summary:
    """Refine the models in sparse/ again, from the models as they were mapped, as `lgbatch refine`.

    With the setting refine=False, restores the models as they were mapped. The parameters are those of `match`. Raises
    LgbatchError if there are no models or no photos.
    """
    workspace, settings = Path(workspace), as_settings(settings, changes)
    summary, files = Summary(settings, ("refine",)), Workspace(workspace)
    with locked(workspace):
        with FeatureStore(files.features) as features:
            folder = photo_folder(photos, features)
        summary.add_refinement(refine_models(files, folder, settings, progress=True))
    return summary


def write_refined_database(workspace: str | Path, database: str | Path) -> int:
    """Write a copy of database.db with the refined keypoints and intrinsics, as `lgbatch refine --write-database`.

    Returns the number of keypoints that moved. Raises InputError if the file exists, ReconstructionError if no model is
    refined, and DatabaseError if the database cannot be read or the copy cannot be written.
    """
    with locked(Path(workspace)):
        return write_copy(Workspace(Path(workspace)), Path(database))


def _default_models() -> Path | None:
    """The default folder of the models; None without a home folder."""
    try:
        return Path(os.path.abspath(default_folder()))  # noqa: PTH100  as recorded_paths has it
    except ModelError:
        return None
