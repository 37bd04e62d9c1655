"""The command `lgbatch localize`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from lgbatch.api import models as on_models
from lgbatch.cli.options import Json, Models, command, new_app
from lgbatch.pipelines.localization.localize import NEIGHBOURS

app = new_app()


@command(app, example="lgbatch localize out new-photos/ -o out/localized")
def localize(
    workspace: Annotated[Path, typer.Argument(metavar="OUT", help="Workspace with a model in sparse/0.")],
    photos: Annotated[
        list[Path], typer.Argument(metavar="PHOTOS...", help="Photos to localize, or folders of photos.")
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder of the results. By default OUT/localized.")
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option("--model", help="Another model of the workspace, such as OUT/georeferenced/0."),
    ] = None,
    add: Annotated[
        bool, typer.Option("--add", help="Also write added/: a copy of the model with the photos and their points.")
    ] = False,
    neighbours: Annotated[
        int, typer.Option(min=1, help="Photos of the model to match each photo with, if it has more than 40.")
    ] = NEIGHBOURS,
    images: Annotated[
        Path | None,
        typer.Option("--images", help="Folder of the model's photos. By default that of the extraction."),
    ] = None,
    models: Models = None,
    as_json: Json = False,
) -> int:
    """Find the poses of new photos in a finished model.

    The photos are extracted as those of the model were, and matched with them; the model stays as it is. Writes
    poses.json, poses.txt (NAME QW QX QY QZ TX TY TZ, camera from world) and queries/, a COLMAP model of the photos.
    The exit status is 1 if a photo has no pose.
    """
    done = on_models.localize(
        workspace,
        photos,
        output=output,
        model=model,
        models=models,
        model_photos=images,
        neighbours=neighbours,
        add=add,
    )
    print(json.dumps(done.as_dict()) if as_json else done.format())
    return done.exit_status
