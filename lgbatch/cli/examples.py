"""The commands `lgbatch infer` and `lgbatch demo`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from lgbatch.cli.options import Json, Models, OutputFolder, command, new_app
from lgbatch.cli.stages import RUN, print_run
from lgbatch.config import Settings
from lgbatch.errors import InputError
from lgbatch.pipelines import demo as demo_pipeline
from lgbatch.pipelines import infer as infer_pipeline
from lgbatch.pipelines.sfm import no_report
from lgbatch.report.make import report_at_end

app = new_app()


@command(app, "infer", example="lgbatch infer a.jpg b.jpg -o matches.png")
def infer(
    first: Annotated[Path, typer.Argument(metavar="FIRST", help="First photo.")],
    second: Annotated[Path, typer.Argument(metavar="SECOND", help="Second photo.")],
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "-o",
            "--output",
            help="Output file: picture (.png, .jpg), arrays (.npz) or text (.json). Repeat the option for several. By "
            "default matches.png.",
        ),
    ] = None,
    models: Models = None,
    as_json: Json = False,
    *,
    settings: Settings,
) -> int:
    """Match two photos, and draw the matches.

    Matches are coloured by score, other keypoints by the layer that pruned them.
    """
    for photo in first, second:
        if not photo.is_file():
            cause = f"{photo} is a folder" if photo.is_dir() else f"there is no photo {photo}"
            raise InputError(f"{cause}: give the paths of two photos")
    files = output or [Path("matches.png")]
    result = infer_pipeline.run(first, second, files, models=models, settings=settings)
    values = {
        "keypoints": [len(image.keypoints) for image in result.features],
        "stop": result.trace.stop,
        "matches": len(result.trace.matches.indices),
        "files": [str(file) for file in files],
    }
    print(json.dumps(values) if as_json else f"{result.format()}: {', '.join(map(str, files))}")
    return 0


@command(app, *RUN, "run", example="lgbatch demo -o demo/")
def demo(
    output: OutputFolder = Path("demo"),
    models: Models = None,
    as_json: Json = False,
    *,
    settings: Settings,
) -> int:
    """Reconstruct a small rendered scene, and report the errors.

    The cameras of the scene are known.
    """
    at_end = report_at_end if settings.report else no_report
    return print_run(demo_pipeline.run(output, models=models, settings=settings, at_end=at_end), output, as_json)
