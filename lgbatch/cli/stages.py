"""`lgbatch run` and its stages: extract, pairs, match, reconstruct."""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, get_args

import typer

from lgbatch.cli.options import (
    ImageFolder,
    Json,
    Models,
    OutputFolder,
    RefinedDatabase,
    RetryFailed,
    WorkspaceFolder,
    command,
    new_app,
)
from lgbatch.colmap.import_stores import import_stores
from lgbatch.colmap.sensors.calibration import read_calibration
from lgbatch.colmap.sensors.rigs import check_rigs
from lgbatch.config import Settings, Stage
from lgbatch.errors import InputError, ModelError
from lgbatch.export.models import ensure_models
from lgbatch.features.extract import extract as extract_features
from lgbatch.features.orient import orient
from lgbatch.matching.match import match as match_pairs
from lgbatch.pairing.methods import check_sources, in_rounds
from lgbatch.pairing.pairs_file import check_pairs
from lgbatch.photos.masks import crawl_with_masks
from lgbatch.pipelines import sfm
from lgbatch.pipelines.pairs.choose import choose_pairs
from lgbatch.pipelines.pairs.estimate import estimate_pairs
from lgbatch.pipelines.second_try import after_second_try, has_second_try
from lgbatch.pipelines.summary import Summary
from lgbatch.reconstruction.reconstruct import reconstruct as reconstruct_database
from lgbatch.reconstruction.refined_database import check_new_database, write_refined_database
from lgbatch.reconstruction.refinement.refine import refine as refine_models
from lgbatch.runtime.packages import pycolmap_problem, require_pycolmap
from lgbatch.runtime.precision import stages_kind
from lgbatch.runtime.registry import default_folder
from lgbatch.storage.features import FeatureStore
from lgbatch.workspace.folder import Workspace
from lgbatch.workspace.ledger import Ledger
from lgbatch.workspace.lock import locked
from lgbatch.workspace.rerun import Rerun

Images = Annotated[
    Path | None,
    typer.Option("--images", help="Folder of the photos. By default that of the extraction."),
]
PairsFile = Annotated[Path | None, typer.Option("--pairs", help="Pairs file to match, instead of choosing the pairs.")]
HERE = Path()
RUN = get_args(Stage)

app = new_app()


@command(app, *RUN, "run", example="lgbatch run photos/ -o out/", instead_of={"pairs": "pairs"})
def run(
    images: ImageFolder,
    output: OutputFolder,
    pairs: PairsFile = None,
    models: Models = None,
    retry_failed: RetryFailed = False,
    as_json: Json = False,
    *,
    settings: Settings,
) -> int:
    """Reconstruct a folder of photos. Extract, choose pairs, match, verify, map and refine.

    Photos are turned upright first, and those that the model lacks are tried again with SIFT. Finished stages are
    skipped. Ctrl-C keeps the batch in flight; a second Ctrl-C exits at once.
    """
    summary = sfm.run(images, output, models=models, settings=settings, pairs=pairs, retry_failed=retry_failed)
    status, page = print_summary(summary, as_json), Workspace(output).report
    if settings.report and not as_json and page.is_file():
        print(f"report      {page}")
    return status


@command(app, "orient", "extract", example="lgbatch extract photos/ -w out")
def extract(
    images: ImageFolder,
    workspace: WorkspaceFolder = HERE,
    models: Models = None,
    retry_failed: RetryFailed = False,
    as_json: Json = False,
    *,
    settings: Settings,
) -> int:
    """Extract local features of every photo into features.h5.

    Photos are turned upright first: orientations.json says how. Ctrl-C keeps the batch in flight; a second Ctrl-C exits
    at once. Run the same command again to continue.
    """
    summary, models = Summary(settings, ("orient", "extract")), models or default_folder()
    store = Workspace(workspace).features
    # before the models are exported: reports a wrong folder
    crawled = crawl_with_masks(images, settings.masks, settings.camera_mask)
    with locked(workspace, create=True):
        ensure_models(models, settings.extractor, ["extractor"])
        with summary.timed("orient"):
            crawled, oriented = orient(crawled, workspace, settings)
        with summary.timed("extract"):
            done = extract_features(
                images, store, models=models, settings=settings, crawled=crawled, retry_failed=retry_failed
            )
    summary.add_oriented(oriented)
    summary.add_extracted(done)
    return print_summary(summary, as_json)


@command(app, "pairs", "match", "import", example="lgbatch pairs -w out --pairing sequential")
def pairs(
    workspace: WorkspaceFolder = HERE,
    images: Images = None,
    models: Models = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print how many pairs there will be, and the time and disk that they take. Write nothing."
        ),
    ] = False,
    retry_failed: RetryFailed = False,
    as_json: Json = False,
    *,
    settings: Settings,
) -> int:
    """Choose the image pairs to match, and list them in pairs.txt.

    With more than 40 photos, pairing auto matches and verifies the pairs as it chooses them: pairs.jsonl tells why each
    was tried, and with what result. The settings of matching and of cameras have an effect only then.
    """
    summary, files = Summary(settings, ("pairs", "match", "import")), Workspace(workspace)
    with locked(workspace), summary.timed("pairs"):
        with FeatureStore(files.features) as features:
            names, folder = features.names(), images or features.image_folder
        if folder and folder.is_dir():
            names = _present(names, folder)
        failed = Ledger(workspace).failed_items(("crawl", "extract"))  # features.h5 may have older features of them
        names = [name for name in names if name not in failed]
        check_rigs(settings, names)
        check_sources(settings)
        models = models or default_folder()
        if in_rounds(settings, len(names)):
            require_pycolmap()
        if in_rounds(settings, len(names)) or dry_run:
            ensure_models(models, settings.extractor, [stages_kind(settings)])
        if dry_run:
            estimate = estimate_pairs(files, names, settings, image_folder=folder, models=models)
            print(json.dumps(asdict(estimate)) if as_json else estimate.format())
            return 0
        chosen = choose_pairs(files, names, settings, image_folder=folder, models=models, retry_failed=retry_failed)
    summary.pairs = chosen.pairs
    summary.add_chosen(chosen)
    return print_summary(summary, as_json)


@command(app, "match", "import", example="lgbatch match out/pairs.txt -w out")
def match(
    pairs_file: Annotated[
        Path | None, typer.Argument(metavar="PAIRS", help="Pairs file. By default pairs.txt of the workspace.")
    ] = None,
    workspace: WorkspaceFolder = HERE,
    images: Images = None,
    models: Models = None,
    retry_failed: RetryFailed = False,
    as_json: Json = False,
    *,
    settings: Settings,
) -> int:
    """Match the pairs into matches.h5, and update database.db.

    Without pycolmap, database.db is left as it is, and the exit status is 1.
    Ctrl-C keeps the batches in flight; a second Ctrl-C exits at once. Run the same command again to continue.
    """
    summary, files, models = Summary(settings, ("match", "import")), Workspace(workspace), models or default_folder()
    pairs_file = pairs_file or files.pairs
    with locked(workspace):
        with FeatureStore(files.features) as features:
            folder = image_folder(images, features)
            names = features.names()
        present = _present(names, folder)  # raises if there is nothing to import
        if not (problem := pycolmap_problem()):
            read_calibration(settings)
            check_rigs(settings, present)
        check_pairs(pairs_file)  # before the models are exported
        ensure_models(models, settings.extractor, [stages_kind(settings)])
        with summary.timed("match"):
            done = match_pairs(
                pairs_file, files.features, files.matches, models=models, settings=settings, retry_failed=retry_failed
            )
        summary.add_matched(done)
        if problem:
            print(f"lgbatch: {files.database} is not updated: {problem}", file=sys.stderr)
        else:
            had_second_try = has_second_try(files)
            with summary.timed("import"):
                imported = import_stores(files, folder, done.usable(names), pairs_file, settings)
            summary.add_imported(imported)
            if had_second_try and not imported.finished_already:
                print(f"lgbatch: {files.database} is without the second try now: run `lgbatch run`", file=sys.stderr)
    return max(print_summary(summary, as_json), int(problem is not None))


@command(app, "reconstruct", "refine", example="lgbatch reconstruct -w out")
def reconstruct(
    workspace: WorkspaceFolder = HERE, images: Images = None, as_json: Json = False, *, settings: Settings
) -> int:
    """Map the images into sparse/. Verify pairs before, and refine the models after it.

    The pairs and images are those of database.db.
    """
    summary, files = Summary(settings, ("reconstruct", "refine")), Workspace(workspace)
    with locked(workspace):
        with FeatureStore(files.features) as features:
            folder = image_folder(images, features)
        rerun = Rerun.of_steps(
            settings, folder, workspace, photos_given=images is not None, default_models=_default_models()
        )
        done = reconstruct_database(files.database, folder, files.sparse, settings=rerun.settings, progress=True)
        summary.add_reconstruction(after_second_try(done, files, folder), rerun)
        if done.models:
            summary.add_refinement(refine_models(files, folder, rerun.settings, progress=True))
    return print_summary(summary, as_json)


@command(app, "refine", example="lgbatch refine -w out")
def refine(
    workspace: WorkspaceFolder = HERE,
    images: Images = None,
    database: RefinedDatabase = None,
    as_json: Json = False,
    *,
    settings: Settings,
) -> int:
    """Refine the models in sparse/ again. Refinement starts from the models as they were mapped.

    With --no-refine, restore the models as they were mapped.
    """
    summary, files = Summary(settings, ("refine",)), Workspace(workspace)
    if database:
        if not settings.refine:
            raise InputError("--write-database writes what is refined: leave out --no-refine")
        check_new_database(database)
    with locked(workspace):
        with FeatureStore(files.features) as features:
            folder = image_folder(images, features)
        summary.add_refinement(refine_models(files, folder, settings, progress=True))
        status = print_summary(summary, as_json)
        if database:
            moved = write_refined_database(files, database)
            print(f"{database}: copy of {files.database} with {moved} keypoints moved", file=sys.stderr)
    return status


def _default_models() -> Path | None:
    """The default folder of the models; None without a home folder."""
    try:
        return Path(os.path.abspath(default_folder()))  # noqa: PTH100  as recorded_paths has it
    except ModelError:
        return None


def _present(names: list[str], folder: Path) -> list[str]:
    """The images whose photo is in the folder. Raises InputError if there is none."""
    if not names:
        raise InputError("features.h5 has no images: extract photos; `lgbatch errors` lists those that failed")
    present = [name for name in names if (folder / name).is_file()]
    if not present:
        raise InputError(f"no image of features.h5 is in {folder}: give their folder with --images, or extract again")
    return present


def image_folder(images: Path | None, features: FeatureStore) -> Path:
    """The folder of the photos: as given, or as features.h5 records it. Raises InputError if there is none."""
    folder = images or features.image_folder
    if folder is None:
        raise InputError(f"{features.path} does not record the folder of the photos: give it with --images")
    if not folder.is_dir():
        raise InputError(f"the folder of the photos, {folder}, does not exist: give their folder with --images")
    return folder


def print_summary(summary: Summary, as_json: bool) -> int:
    """Print the summary of a run, and return its exit status."""
    print(json.dumps(summary.as_dict()) if as_json else summary.format())
    return summary.exit_status
