"""The stages of a run one by one, as the commands extract, pairs, match, reconstruct and refine."""

import sys
from pathlib import Path
from typing import Any

from lgbatch.api.inputs import default_models, models_folder, photo_folder, present_photos
from lgbatch.colmap.import_stores import import_stores
from lgbatch.colmap.sensors.calibration import read_calibration
from lgbatch.colmap.sensors.rigs import check_rigs
from lgbatch.config import Settings
from lgbatch.errors import InputError
from lgbatch.export.models import ensure_models
from lgbatch.features.extract import extract as extract_features
from lgbatch.features.orient import orient
from lgbatch.matching.match import match as match_pairs
from lgbatch.pairing.methods import check_sources, in_rounds
from lgbatch.pairing.pairs_file import check_pairs
from lgbatch.photos.masks import crawl_with_masks
from lgbatch.pipelines.pairs.choose import choose_pairs
from lgbatch.pipelines.pairs.estimate import Estimate
from lgbatch.pipelines.pairs.estimate import estimate_pairs as estimate_workspace_pairs
from lgbatch.pipelines.second_try import after_second_try, has_second_try
from lgbatch.pipelines.sfm import as_settings
from lgbatch.pipelines.summary import Summary
from lgbatch.reconstruction.reconstruct import reconstruct as reconstruct_database
from lgbatch.reconstruction.refined_database import check_new_database, write_refined_database
from lgbatch.reconstruction.refinement.refine import refine as refine_models
from lgbatch.runtime.packages import require_pycolmap
from lgbatch.runtime.precision import stages_kind
from lgbatch.storage.features import FeatureStore
from lgbatch.workspace.folder import Workspace
from lgbatch.workspace.ledger import Ledger
from lgbatch.workspace.lock import locked
from lgbatch.workspace.rerun import Rerun


def extract(
    photos: str | Path,
    workspace: str | Path,
    *,
    models: str | Path | None = None,
    settings: Settings | None = None,
    retry_failed: bool = False,
    **changes: Any,
) -> Summary:
    """Extract the local features of the photos below a folder into features.h5, as `lgbatch extract`.

    Photos are turned upright first: orientations.json says how. Photos whose features are stored are skipped. `models`
    is the folder of the ONNX models, by default that of the command line; missing ones are exported first. Pass either
    `settings`, or changes to the defaults by name, such as max_keypoints=1024.

    Photos that cannot be used are in the summary's `failures`; later calls skip them unless `retry_failed` is set.
    Raises LgbatchError if the extraction cannot start or continue, or if another command works in `workspace`.
    """
    photos, workspace, settings = Path(photos), Path(workspace), as_settings(settings, changes)
    summary, models = Summary(settings, ("orient", "extract")), models_folder(models)
    # before the models are exported: reports a wrong folder
    crawled = crawl_with_masks(photos, settings.masks, settings.camera_mask)
    with locked(workspace, create=True):
        ensure_models(models, settings.extractor, ["extractor"])
        with summary.timed("orient"):
            crawled, oriented = orient(crawled, workspace, settings)
        with summary.timed("extract"):
            done = extract_features(
                photos,
                Workspace(workspace).features,
                models=models,
                settings=settings,
                crawled=crawled,
                retry_failed=retry_failed,
            )
    summary.add_oriented(oriented)
    summary.add_extracted(done)
    return summary


def pairs(
    workspace: str | Path,
    *,
    photos: str | Path | None = None,
    models: str | Path | None = None,
    settings: Settings | None = None,
    retry_failed: bool = False,
    **changes: Any,
) -> Summary:
    """Choose the image pairs to match, and list them in pairs.txt, as `lgbatch pairs`.

    With more than 40 photos, pairing "auto" matches and verifies the pairs as it chooses them. `photos` is the folder
    of the photos, by default that of the extraction; the other parameters are those of `extract`. Raises LgbatchError
    if there are no features, or the settings do not fit them.
    """
    workspace, settings = Path(workspace), as_settings(settings, changes)
    summary = Summary(settings, ("pairs", "match", "import"))
    with locked(workspace), summary.timed("pairs"):
        names, folder = _names_to_pair(workspace, photos, settings)
        models = models_folder(models)
        if in_rounds(settings, len(names)):
            require_pycolmap()
            ensure_models(models, settings.extractor, [stages_kind(settings)])
        chosen = choose_pairs(
            Workspace(workspace), names, settings, image_folder=folder, models=models, retry_failed=retry_failed
        )
    summary.pairs = chosen.pairs
    summary.add_chosen(chosen)
    return summary


def estimate_pairs(
    workspace: str | Path,
    *,
    photos: str | Path | None = None,
    models: str | Path | None = None,
    settings: Settings | None = None,
    **changes: Any,
) -> Estimate:
    """Tell how many pairs there will be, and the time and disk that they take, as `lgbatch pairs --dry-run`.

    Matches some pairs to measure the time, and writes nothing. The parameters are those of `pairs`; raises as it does.
    """
    workspace, settings = Path(workspace), as_settings(settings, changes)
    with locked(workspace):
        names, folder = _names_to_pair(workspace, photos, settings)
        models = models_folder(models)
        if in_rounds(settings, len(names)):
            require_pycolmap()
        ensure_models(models, settings.extractor, [stages_kind(settings)])
        return estimate_workspace_pairs(Workspace(workspace), names, settings, image_folder=folder, models=models)


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
        present = present_photos(names, folder)  # raises if there is nothing to import
        if database:
            _check_import(present, settings)
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
        _check_import(present_photos(names, folder), settings)
        check_pairs(file)
        _import(summary, files, folder, names, file)
    return summary


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
            settings, folder, workspace, photos_given=photos is not None, default_models=default_models()
        )
        done = reconstruct_database(files.database, folder, files.sparse, settings=rerun.settings, progress=True)
        summary.add_reconstruction(after_second_try(done, files, folder), rerun)
        if done.models:
            summary.add_refinement(refine_models(files, folder, rerun.settings, progress=True))
    return summary


def refine(
    workspace: str | Path,
    *,
    photos: str | Path | None = None,
    database: str | Path | None = None,
    settings: Settings | None = None,
    **changes: Any,
) -> Summary:
    """Refine the models in sparse/ again, from the models as they were mapped, as `lgbatch refine`.

    With the setting refine=False, restores the models as they were mapped. With `database`, a path, also writes a copy
    of database.db with the refined keypoints there. The other parameters are those of `match`. Raises LgbatchError if
    there are no models or no photos, or the copy cannot be written.
    """
    workspace, settings = Path(workspace), as_settings(settings, changes)
    summary, files = Summary(settings, ("refine",)), Workspace(workspace)
    if database:
        if not settings.refine:
            raise InputError("--write-database writes what is refined: leave out --no-refine")
        check_new_database(Path(database))
    with locked(workspace):
        with FeatureStore(files.features) as features:
            folder = photo_folder(photos, features)
        summary.add_refinement(refine_models(files, folder, settings, progress=True))
        if database:
            moved = write_refined_database(files, Path(database))
            print(f"{database}: copy of {files.database} with {moved} keypoints moved", file=sys.stderr)
    return summary


def _names_to_pair(workspace: Path, photos: str | Path | None, settings: Settings) -> tuple[list[str], Path | None]:
    """The images to choose pairs of, and the folder of their photos, if it is known. Checks rigs and sources."""
    with FeatureStore(Workspace(workspace).features) as features:
        names, folder = features.names(), Path(photos) if photos else features.image_folder
    if folder and folder.is_dir():
        names = present_photos(names, folder)
    failed = Ledger(workspace).failed_items(("crawl", "extract"))  # features.h5 may have older features of them
    names = [name for name in names if name not in failed]
    check_rigs(settings, names)
    check_sources(settings)
    return names, folder


def _check_import(present: list[str], settings: Settings) -> None:
    """Raise LgbatchError if the import of these images cannot start: here, not after an hour of matching."""
    require_pycolmap()
    read_calibration(settings)
    check_rigs(settings, present)


def _import(summary: Summary, files: Workspace, folder: Path, names: list[str], pairs: Path) -> None:
    had_second_try = has_second_try(files)
    with summary.timed("import"):
        imported = import_stores(files, folder, names, pairs, summary.settings)
    summary.add_imported(imported)
    if had_second_try and not imported.finished_already:
        print(f"lgbatch: {files.database} is without the second try now: run `lgbatch run`", file=sys.stderr)
