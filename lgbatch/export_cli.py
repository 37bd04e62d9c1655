"""The command `lgbatch export`."""

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from lgbatch.config import Settings
from lgbatch.errors import InputError
from lgbatch.export import EXTRACTORS, export_for_others
from lgbatch.export import export as export_models
from lgbatch.models import default_folder
from lgbatch.options import Json, Models, command

app = typer.Typer(pretty_exceptions_enable=False)

OTHERS = "For other programs"
TENSORRT_LIMIT = 3840
"""Most keypoints that TensorRT's TopK can choose."""


@command(app)
def export(
    extractor: Annotated[str, typer.Argument(help="Which local features: " + ", ".join(EXTRACTORS) + ".")] = "disk",
    weights: Annotated[
        Path | None, typer.Option(help="Folder of weights files.", show_default="the cache, or else fetched")
    ] = None,
    models: Models = None,
    end2end: Annotated[
        bool, typer.Option("--end2end", help="One graph from two photos to their matches.", rich_help_panel=OTHERS)
    ] = False,
    fp16: Annotated[
        bool, typer.Option("--fp16", help="Heavy operators in half precision.", rich_help_panel=OTHERS)
    ] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="LightGlue's linear weights in 8 bits.", rich_help_panel=OTHERS)
    ] = False,
    static: Annotated[
        str | None, typer.Option(metavar="HxW", help="Photos of this size only.", rich_help_panel=OTHERS)
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="So many photos, or pairs, in a run.", rich_help_panel=OTHERS)
    ] = None,
    max_keypoints: Annotated[
        int | None,
        typer.Option(min=1, help="Most keypoints of a photo, as a constant.", rich_help_panel=OTHERS),
    ] = None,
    opset: Annotated[
        int | None,
        typer.Option(min=18, max=24, help="ONNX operators of this version.", rich_help_panel=OTHERS),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder to write to.", show_default="this one", rich_help_panel=OTHERS),
    ] = None,
    as_json: Json = False,
    *,
    settings: Settings,
) -> int:
    """Make the ONNX models of an extractor and its LightGlue from the pretrained weights (once per machine).

    With any of the options for other programs, models of that form are written to a folder instead.
    """
    chosen = Settings.load(**settings.as_dict() | {"extractor": extractor}).extractor
    folder = models or default_folder()
    if not (end2end or fp16 or int8 or static or batch or max_keypoints or opset or output):
        made = export_models(folder, chosen, weights=weights)
        if as_json:
            print(json.dumps({str(model.path): model.parity for model in made}))
        return 0
    if fp16 and int8:
        raise InputError("--fp16 and --int8 are two precisions: choose one")
    if max_keypoints and max_keypoints > TENSORRT_LIMIT:
        typer.echo(f"TensorRT cannot choose more than {TENSORRT_LIMIT} keypoints: this model is not for it", err=True)
    files = export_for_others(
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
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    if not found or min(map(int, found.groups())) < 32:
        raise InputError(f"--static {text}: give height and width in pixels, as in 768x1024, 32 and more")
    return int(found[1]), int(found[2])
