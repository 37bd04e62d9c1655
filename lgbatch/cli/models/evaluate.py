"""The command `lgbatch evaluate`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from lgbatch.api import models
from lgbatch.cli.options import Json, command, new_app
from lgbatch.reconstruction.evaluation.text import format_evaluation

app = new_app()


@command(app, example="lgbatch evaluate out --truth cameras/ --intrinsics truth")
def evaluate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a COLMAP model, or workspace.")],
    truth: Annotated[
        Path,
        typer.Option(
            help="Ground truth: folder of Strecha's NAME.camera files, of a COLMAP model or of 4 x 4 poses (7-Scenes), "
            "transforms.json (nerfstudio), or TUM trajectory."
        ),
    ],
    photos: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the photos whose cameras count. By default those of the images in the workspace's database."
        ),
    ] = None,
    intrinsics: Annotated[
        str | None,
        typer.Option(
            metavar="truth|FILE",
            help="Also evaluate the model after an adjustment with given intrinsics: of the ground truth, or of a file "
            "cameras.txt.",
        ),
    ] = None,
    as_json: Json = False,
) -> int:
    """Compare a model with ground truth.

    Reports the AUC of relative poses, and position and rotation errors after a similarity alignment. The exit status is
    1 if the model does not register all known cameras.
    """
    evaluation = models.evaluate(model, truth, photos=photos, intrinsics=intrinsics)
    print(json.dumps(evaluation.as_dict()) if as_json else format_evaluation(evaluation))
    return 1 if evaluation.unregistered else 0
