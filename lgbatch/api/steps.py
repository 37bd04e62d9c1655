"""The stages up to the database one by one, as the commands extract, pairs and match."""

import sys
from pathlib import Path
from typing import Any

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
from lgbatch.pipelines.second_try import has_second_try
from lgbatch.pipelines.sfm import as_settings
from lgbatch.pipelines.summary import Summary
from lgbatch.runtime.packages import require_pycolmap
from lgbatch.runtime.precision import extractor_kind, stages_kind
from lgbatch.runtime.registry import default_folder
from lgbatch.storage.features import FeatureStore
from lgbatch.workspace.folder import Workspace
from lgbatch.workspace.ledger import Ledger
from lgbatch.workspace.lock import locked


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
        ensure_models(models, settings.extractor, [extractor_kind(settings)])
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
        present = _present(names, folder)  # raises if there is nothing to import
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
        _check_import(_present(names, folder), settings)
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


def _present(names: list[str], folder: Path) -> list[str]:
    """The images whose photo is in the folder. Raises InputError if there is none."""
    if not names:
        raise InputError("features.h5 has no images: extract photos; `lgbatch errors` lists those that failed")
    present = [name for name in names if (folder / name).is_file()]
    if not present:
        raise InputError(f"no image of features.h5 is in {folder}: give their folder with --images, or extract again")
    return present


def _names_to_pair(workspace: Path, photos: str | Path | None, settings: Settings) -> tuple[list[str], Path | None]:
    """The images to choose pairs of, and the folder of their photos, if it is known. Checks rigs and sources."""
    with FeatureStore(Workspace(workspace).features) as features:
        names, folder = features.names(), Path(photos) if photos else features.image_folder
    if folder and folder.is_dir():
        names = _present(names, folder)
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
