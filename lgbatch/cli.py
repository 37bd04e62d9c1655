"""The command line: one function per command, no logic."""

import io
import json
import logging
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lgbatch import __version__, bench_cli, export_cli, store_cli
from lgbatch.config import Settings
from lgbatch.crawl import crawl
from lgbatch.database import import_stores
from lgbatch.doctor import diagnose
from lgbatch.errors import InputError
from lgbatch.export import ensure_models
from lgbatch.extract import extract as extract_features
from lgbatch.ledger import Ledger
from lgbatch.lock import locked
from lgbatch.match import match as match_pairs
from lgbatch.models import default_folder, stages_kind
from lgbatch.options import Json, Models, RetryFailed, WorkspaceFolder, command
from lgbatch.pairs import check_pairs, make_pairs, write_pairs
from lgbatch.pipelines import demo as demo_pipeline
from lgbatch.pipelines import infer as infer_pipeline
from lgbatch.pipelines import sfm
from lgbatch.reconstruct import reconstruct as reconstruct_database
from lgbatch.store import FeatureStore
from lgbatch.summary import Summary
from lgbatch.types import Workspace

app = typer.Typer(
    help="Photos to a COLMAP model with learned features. Start with: lgbatch run PHOTOS -o OUT",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

EXTRACT = ("extractor", "max_keypoints", "resize", "max_megapixels", "on_change", "device", "threads", "max_errors")
PAIRS = ("pairing", "window")
MATCH = (
    "extractor",
    "depth_confidence",
    "width_confidence",
    "filter_threshold",
    "give_up",
    "camera_mode",
    "camera_model",
    "on_change",
    "device",
    "precision",
    "threads",
    "workers",
    "max_errors",
)
INFER = (
    "extractor",
    "max_keypoints",
    "resize",
    "depth_confidence",
    "width_confidence",
    "filter_threshold",
    "device",
    "precision",
    "threads",
)
RECONSTRUCT = ("mapper", "threads")
RUN = tuple(dict.fromkeys(EXTRACT + PAIRS + MATCH + RECONSTRUCT))

ImageFolder = Annotated[Path, typer.Argument(help="Folder of photos; folders in it are searched too.")]
Images = Annotated[
    Path | None,
    typer.Option("--images", help="Folder of the photos.", show_default="where they were when they were extracted"),
]
Here = Path()


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _lgbatch(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    pass


@command(app, *RUN)
def run(
    images: ImageFolder,
    output: Annotated[Path, typer.Option("-o", "--output", "-w", "--workspace", help="Folder for all results.")],
    models: Models = None,
    retry_failed: RetryFailed = False,
    as_json: Json = False,
    *,
    settings: Settings,
) -> int:
    """Reconstruct a folder of photos: extract, pair, match, verify and map, all in one.

    What is finished is not done again. Ctrl-C keeps the batch in flight; a second Ctrl-C leaves at once.
    """
    return _tell(sfm.run(images, output, models=models, settings=settings, retry_failed=retry_failed), as_json)


@command(app, *EXTRACT)
def extract(
    images: ImageFolder,
    workspace: WorkspaceFolder = Here,
    models: Models = None,
    retry_failed: RetryFailed = False,
    as_json: Json = False,
    *,
    settings: Settings,
) -> int:
    """Extract local features of every photo into features.h5.

    Ctrl-C keeps the batch in flight; a second Ctrl-C leaves at once. The same command goes on from there.
    """
    summary, store, models = Summary(settings), Workspace(workspace).features, models or default_folder()
    found = crawl(images)  # before the models, which may take a while to make: a wrong folder shows at once
    with locked(workspace, make=True):
        ensure_models(models, settings.extractor, ["extractor"])
        with summary.timed("extract"):
            done = extract_features(
                images, store, models=models, settings=settings, found=found, retry_failed=retry_failed
            )
    summary.add_extracted(done)
    return _tell(summary, as_json)


@command(app, *PAIRS)
def pairs(workspace: WorkspaceFolder = Here, as_json: Json = False, *, settings: Settings) -> int:
    """List the pairs of images to match in pairs.txt."""
    summary, files = Summary(settings), Workspace(workspace)
    with locked(workspace), summary.timed("pairs"):
        with FeatureStore(files.features) as features:
            chosen = make_pairs(features.names(), settings)
        write_pairs(files.pairs, chosen)
    summary.pairs = len(chosen)
    return _tell(summary, as_json)


@command(app, *MATCH)
def match(
    pairs_file: Annotated[Path | None, typer.Argument(metavar="[PAIRS]", help="Pairs file.")] = None,
    workspace: WorkspaceFolder = Here,
    images: Images = None,
    models: Models = None,
    retry_failed: RetryFailed = False,
    as_json: Json = False,
    *,
    settings: Settings,
) -> int:
    """Match the pairs into matches.h5, and bring database.db up to date.

    Ctrl-C keeps the batches in flight; a second Ctrl-C leaves at once. The same command goes on from there.
    """
    summary, files, models = Summary(settings), Workspace(workspace), models or default_folder()
    pairs_file = pairs_file or files.pairs
    with locked(workspace):
        with FeatureStore(files.features) as features:
            names = features.names()
            folder = _image_folder(images, features)
        check_pairs(pairs_file)  # before the models too
        ensure_models(models, settings.extractor, [stages_kind(settings)])
        with summary.timed("match"):
            done = match_pairs(
                pairs_file, files.features, files.matches, models=models, settings=settings, retry_failed=retry_failed
            )
        summary.add_matched(done)
        with summary.timed("import"):
            import_stores(files, folder, done.usable(names), settings)
    return _tell(summary, as_json)


@command(app, *RECONSTRUCT)
def reconstruct(
    workspace: WorkspaceFolder = Here, images: Images = None, as_json: Json = False, *, settings: Settings
) -> int:
    """Verify the pairs of database.db, and map them into sparse/."""
    summary, files = Summary(settings), Workspace(workspace)
    with locked(workspace):
        with FeatureStore(files.features) as features:
            folder = _image_folder(images, features)
        done = reconstruct_database(
            files.database,
            folder,
            files.sparse,
            mapper=settings.mapper,
            threads=settings.threads,
            progress=sys.stderr.isatty(),
        )
    summary.add_reconstruction(done)
    return _tell(summary, as_json)


@command(app, *INFER)
def infer(
    first: Annotated[Path, typer.Argument(help="A photo.")],
    second: Annotated[Path, typer.Argument(help="Another photo.")],
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "-o",
            "--output",
            help="File to write: a picture (.png, .jpg), arrays (.npz) or text (.json). May be given several times.",
            show_default="matches.png",
        ),
    ] = None,
    models: Models = None,
    as_json: Json = False,
    *,
    settings: Settings,
) -> int:
    """Match two photos, and draw the matches: lines by score, points by the layer after which they left."""
    files = output or [Path("matches.png")]
    found = infer_pipeline.run(first, second, files, models=models, settings=settings)
    told = {"keypoints": [len(image.keypoints) for image in found.features], "stop": found.followed.stop}
    told |= {"matches": len(found.followed.matches.indices), "files": [str(file) for file in files]}
    print(json.dumps(told) if as_json else f"{found.in_words()}: {', '.join(map(str, files))}")
    return 0


@command(app, *RUN)
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", "-w", "--workspace", help="Folder for all results.")] = Path(
        "demo"
    ),
    models: Models = None,
    as_json: Json = False,
    *,
    settings: Settings,
) -> int:
    """Make a small scene with known cameras, run everything on it, and say how far off the result is."""
    return _tell(demo_pipeline.run(output, models=models, settings=settings), as_json)


@command(app)
def errors(
    workspace: WorkspaceFolder = Here,
    tracebacks: Annotated[bool, typer.Option("--traceback", help="Show where each was made.")] = False,
    as_json: Json = False,
    *,
    settings: Settings,
) -> int:
    """List the photos and pairs that failed, and that only `--retry-failed` tries again."""
    if not workspace.is_dir():
        raise InputError(f"there is no folder {workspace}: choose the --workspace of a run")
    kept = Ledger(workspace).entries()
    if as_json:
        print(json.dumps({"errors": [asdict(entry) for entry in kept]}))
        return 0
    for entry in kept:
        print(entry.time, entry.failure().in_words())
        if tracebacks or logging.getLogger("lgbatch").isEnabledFor(logging.DEBUG):
            print(entry.traceback)
    if not kept:
        print(f"no errors in {workspace}")
    return 0


@command(app, "extractor", "device", "precision")
def doctor(models: Models = None, as_json: Json = False, *, settings: Settings) -> int:
    """Say what would be used on this machine, and what stands in the way; exit status 1 if something does."""
    found = diagnose(models or default_folder(), settings)
    print(json.dumps(found.values) if as_json else found.in_words())
    return 1 if found.problems else 0


app.add_typer(export_cli.app)
app.add_typer(store_cli.app)
app.add_typer(bench_cli.app, name="bench")


def _image_folder(images: Path | None, features: FeatureStore) -> Path:
    folder = images or features.image_folder
    if folder is None:
        raise InputError(f"{features.path} does not say where the photos are: give their folder with --images")
    if not folder.is_dir():
        raise InputError(f"the photos are no longer in {folder}: give their folder with --images")
    return folder


def _tell(summary: Summary, as_json: bool) -> int:
    print(json.dumps(summary.as_dict()) if as_json else summary.in_words())
    return summary.exit_status


def main() -> None:
    """Entry point of the command `lgbatch`."""
    for stream in sys.stdout, sys.stderr:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal's encoding lacks
    app()
