"""The command `lgbatch export`."""

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from lgbatch.cli.options import Json, Models, command, new_app
from lgbatch.config import Settings
from lgbatch.errors import InputError
from lgbatch.export.extractors import EXTRACTORS
from lgbatch.export.models import export as export_models
from lgbatch.export.models import export_portable
from lgbatch.runtime.registry import default_folder

app = new_app()
OTHER_PROGRAMS = "Models for other programs"
TENSORRT_LIMIT = 3840
"""Maximum k of TensorRT's TopK."""


@command(app, example="lgbatch export disk")
def export(
    extractor: Annotated[
        str, typer.Argument(metavar="EXTRACTOR", help="Local features: " + ", ".join(EXTRACTORS) + ".")
    ] = Settings().extractor,
    weights: Annotated[
        Path | None,
        typer.Option(help="Folder of weights files. By default they are downloaded, or taken from the cache."),
    ] = None,
    models: Models = None,
    end2end: Annotated[
        bool,
        typer.Option("--end2end", help="One graph from two photos to their matches.", rich_help_panel=OTHER_PROGRAMS),
    ] = False,
    fp16: Annotated[
        bool,
        typer.Option(
            "--fp16", help="Convolutions and matrix products in half precision.", rich_help_panel=OTHER_PROGRAMS
        ),
    ] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="Linear weights of LightGlue in 8 bits.", rich_help_panel=OTHER_PROGRAMS)
    ] = False,
    static: Annotated[
        str | None, typer.Option(metavar="HxW", help="Fixed photo size.", rich_help_panel=OTHER_PROGRAMS)
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Fixed batch size: photos, or pairs.", rich_help_panel=OTHER_PROGRAMS)
    ] = None,
    max_keypoints: Annotated[
        int | None,
        typer.Option(min=1, help="Maximum keypoints per photo, as a constant.", rich_help_panel=OTHER_PROGRAMS),
    ] = None,
    opset: Annotated[
        int | None,
        typer.Option(min=18, max=24, help="ONNX opset version.", rich_help_panel=OTHER_PROGRAMS),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="Output folder. By default the current folder.", rich_help_panel=OTHER_PROGRAMS
        ),
    ] = None,
    as_json: Json = False,
) -> int:
    """Export an extractor and its LightGlue to ONNX.

    The pretrained weights are downloaded. One export per machine is enough. With an option for other programs, models
    of that form are written to a folder instead.
    """
    chosen = Settings.load(extractor=extractor).extractor
    folder = models or default_folder()
    if not (end2end or fp16 or int8 or static or batch or max_keypoints or opset or output):
        exported = export_models(folder, chosen, weights=weights)
        if as_json:
            print(json.dumps({str(model.path): model.parity for model in exported}))
        return 0
    if fp16 and int8:
        raise InputError("--fp16 and --int8 exclude each other: choose one")
    if max_keypoints and max_keypoints > TENSORRT_LIMIT:
        typer.echo(f"TensorRT selects at most {TENSORRT_LIMIT} keypoints: it cannot run this model", err=True)
    files = export_portable(
        output or Path(),
        chosen,
        end2end=end2end,
        precision="fp16" if fp16 else "int8" if int8 else "fp32",
        size=_size(static) if static else None,
        batch=batch,
        max_keypoints=max_keypoints,
        opset=opset,
        weights=weights,
        models=folder,
    )
    if as_json:
        print(json.dumps({"files": [str(file) for file in files]}))
    return 0


def _size(text: str) -> tuple[int, int]:
    """Parse the value of --static: height and width."""
    size = re.fullmatch(r"(\d+)x(\d+)", text)
    if not size or min(map(int, size.groups())) < 32:
        raise InputError(f"--static {text}: give height and width in pixels, at least 32 each, as in 768x1024")
    return int(size[1]), int(size[2])
