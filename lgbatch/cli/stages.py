"""`lgbatch run` and its stages: extract, pairs, match, reconstruct."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

import lgbatch
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
from lgbatch.config import Settings, Stage
from lgbatch.errors import InputError
from lgbatch.runtime.packages import pycolmap_problem
from lgbatch.types import escape
from lgbatch.workspace.folder import Workspace

if TYPE_CHECKING:
    from lgbatch.pipelines.summary import Summary

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
    summary = lgbatch.run(images, output, models=models, settings=settings, pairs=pairs, retry_failed=retry_failed)
    return print_run(summary, output, as_json)


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
    summary = lgbatch.extract(images, workspace, models=models, settings=settings, retry_failed=retry_failed)
    return print_summary(summary, as_json)


@command(app, "pairs", "match", "import", example="lgbatch pairs -w out --pairing sequential")
def pairs(
    workspace: WorkspaceFolder = HERE,
    images: Images = None,
    models: Models = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print how many pairs there will be, how many are matched already, and the time and disk that the "
            "others take. Write nothing.",
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
    if dry_run:
        estimate = lgbatch.estimate_pairs(workspace, photos=images, models=models, settings=settings)
        print(json.dumps(asdict(estimate)) if as_json else estimate.format())
        return 0
    summary = lgbatch.pairs(workspace, photos=images, models=models, settings=settings, retry_failed=retry_failed)
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
    problem = pycolmap_problem()
    summary = lgbatch.match(
        workspace,
        pairs_file,
        photos=images,
        models=models,
        settings=settings,
        retry_failed=retry_failed,
        database=not problem,
    )
    if problem:
        print(f"lgbatch: {Workspace(workspace).database} is not updated: {problem}", file=sys.stderr)
    return max(print_summary(summary, as_json), int(problem is not None))


@command(app, "reconstruct", "refine", example="lgbatch reconstruct -w out")
def reconstruct(
    workspace: WorkspaceFolder = HERE, images: Images = None, as_json: Json = False, *, settings: Settings
) -> int:
    """Map the images into sparse/. Verify pairs before, and refine the models after it.

    The pairs and images are those of database.db.
    """
    return print_summary(lgbatch.reconstruct(workspace, photos=images, settings=settings), as_json)


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
    if database:
        if not settings.refine:
            raise InputError("--write-database writes what is refined: leave out --no-refine")
        from lgbatch.reconstruction.refined_database import check_new_database

        check_new_database(database)
    status = print_summary(lgbatch.refine(workspace, photos=images, settings=settings), as_json)
    if database:
        moved = lgbatch.write_refined_database(workspace, database)
        print(f"{database}: copy of the database with {moved} keypoints moved", file=sys.stderr)
    return status


def print_run(summary: "Summary", workspace: Path, as_json: bool) -> int:
    """Print the summary of a whole run and where its report is, and return its exit status."""
    status, page = print_summary(summary, as_json), Workspace(workspace).report
    if summary.settings.report and not as_json and page.is_file():
        print(escape(f"report      {page}"))
    return status


def print_summary(summary: "Summary", as_json: bool) -> int:
    """Print the summary of a run, and return its exit status."""
    print(json.dumps(summary.as_dict()) if as_json else summary.format())
    return summary.exit_status
