"""Matching and the import of matches, as the command match."""

import sys
from pathlib import Path
from typing import Any

from lgbatch.colmap.import_stores import import_stores
from lgbatch.colmap.log import import_pycolmap
from lgbatch.colmap.sensors.calibration import read_calibration
from lgbatch.colmap.sensors.rigs import check_rigs
from lgbatch.config import Settings
from lgbatch.errors import InputError
from lgbatch.export.models import ensure_models
from lgbatch.matching.match import match as match_pairs
from lgbatch.pairing.pairs_file import check_pairs
from lgbatch.pipelines.settings import as_settings
from lgbatch.pipelines.summary import Summary
from lgbatch.runtime.packages import require_pycolmap
from lgbatch.runtime.precision import stages_kind
from lgbatch.runtime.registry import default_folder
from lgbatch.storage.features import FeatureStore
from lgbatch.workspace.folder import Workspace
from lgbatch.workspace.lock import locked
from lgbatch.workspace.stage_cache import StageCache, has_second_try


def match(
    workspace: str | Path,
    pairs: str | Path | None = None,
    *,
    photos: str | Path | None = None,
    models: str | Path | None = None,
    settings: Settings | None = None,
    retry_failed: bool = False,
    database: bool = True,
    **changes: Any,
) -> Summary:
    """Match the pairs of a file, by default pairs.txt, into matches.h5, and update database.db, as `lgbatch match`.

    Pairs whose matches are stored are skipped. `photos` is the folder of the photos, by default that of the extraction;
    with `database` False, database.db is left as it is. The other parameters are those of `extract`.

    Pairs that failed are in the summary's `failures`. Raises LgbatchError if there are no features or no pairs, or if
    matching cannot start or continue.
    """
    workspace, settings = Path(workspace), as_settings(settings, changes)
    summary, files, models = Summary(settings, ("match", "import")), Workspace(workspace), models_folder(models)
    file = Path(pairs) if pairs else files.pairs
    with locked(workspace):
        with FeatureStore(files.features) as features:
            folder, names = photo_folder(photos, features), features.names()
        present = present_images(names, folder)  # raises if there is nothing to import
        if database:
            _check_import(present, files, settings)
        check_pairs(file)  # before the models are exported
        ensure_models(models, settings.extractor, [stages_kind(settings)])
        with summary.timed("match"):
            done = match_pairs(
                file, files.features, files.matches, models=models, settings=settings, retry_failed=retry_failed
            )
        summary.add_matched(done)
        if database:
            _import(summary, files, folder, done.usable(names), file)
    return summary


def import_matches(
    workspace: str | Path,
    pairs: str | Path | None = None,
    *,
    photos: str | Path | None = None,
    settings: Settings | None = None,
    **changes: Any,
) -> Summary:
    """Bring database.db up to date with features.h5 and matches.h5, which may be hloc's, as the end of `lgbatch match`.

    The database gets the pairs of a file, by default pairs.txt. A database that COLMAP or another program made keeps
    its cameras and images. The parameters are those of `match`. Raises LgbatchError if a store cannot be read, or does
    not fit the database.
    """
    workspace, settings = Path(workspace), as_settings(settings, changes)
    summary, files = Summary(settings, ("import",)), Workspace(workspace)
    file = Path(pairs) if pairs else files.pairs
    with locked(workspace):
        with FeatureStore(files.features) as features:
            folder, names = photo_folder(photos, features), features.names()
        _check_import(present_images(names, folder), files, settings)
        check_pairs(file)
        _import(summary, files, folder, names, file)
    return summary


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


def present_images(names: list[str], folder: Path) -> list[str]:
    """The images whose photo is in the folder. Raises InputError if there is none."""
    if not names:
        raise InputError("features.h5 has no images: extract photos; `lgbatch errors` lists those that failed")
    present = [name for name in names if (folder / name).is_file()]
    if not present:
        raise InputError(f"no image of features.h5 is in {folder}: give their folder with --images, or extract again")
    return present


def _check_import(present: list[str], files: Workspace, settings: Settings) -> None:
    """Raise LgbatchError if the import of these images cannot start: here, not after an hour of matching."""
    require_pycolmap()
    if not StageCache(files.root, "import").has_left(files.database):  # else there may be nothing to import
        import_pycolmap()
    read_calibration(settings)
    check_rigs(settings, present)


def _import(summary: Summary, files: Workspace, folder: Path, names: list[str], pairs: Path) -> None:
    had_second_try = has_second_try(files.root)
    with summary.timed("import"):
        imported = import_stores(files, folder, names, pairs, summary.settings)
    summary.add_imported(imported)
    if had_second_try and not imported.finished_already:
        print(f"lgbatch: {files.database} is without the second try now: run `lgbatch run`", file=sys.stderr)
