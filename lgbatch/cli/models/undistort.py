"""The command `lgbatch undistort`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from lgbatch.api import models
from lgbatch.cli.options import Json, command, new_app
from lgbatch.config import Settings

Model = Annotated[
    int | None,
    typer.Option("--model", metavar="N", help="Number of the model in sparse/. By default the one with most images."),
]
Photos = Annotated[
    Path | None,
    typer.Option("--images", help="Folder of the model's photos. By default that of the extraction."),
]

app = new_app()


@command(app, "undistort", example="lgbatch undistort out -o dense")
def undistort(
    source: Annotated[Path, typer.Argument(metavar="OUT", help="Workspace, or folder of a COLMAP model.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="New folder for the undistorted photos.")],
    model: Model = None,
    images: Photos = None,
    flat: Annotated[
        bool,
        typer.Option(
            "--flat",
            help="Write all photos into one folder, without spaces in their names: for 3DGS and OpenMVS.",
        ),
    ] = False,
    as_json: Json = False,
    *,
    settings: Settings,
) -> int:
    """Undistort the photos of a model, for other programs.

    Splat and NeRF trainers and multi-view stereo read the folder. Writes images/ and sparse/0/ with PINHOLE
    cameras, and masks/ if the photos have masks. Run the same command again to continue. The exit status is 1 if a
    photo could not be undistorted.
    """
    done = models.undistort(
        source,
        output,
        model=model,
        photos=images,
        flat=flat,
        masks=settings.masks,
        camera_mask=settings.camera_mask,
    )
    print(json.dumps(done.as_dict()) if as_json else done.format())
    return 1 if done.failures else 0
