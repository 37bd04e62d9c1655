"""The command `lgbatch triangulate`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from lgbatch.api import models
from lgbatch.cli.options import Json, command, new_app

app = new_app()


@command(app, example="lgbatch triangulate out --poses known/sparse/0")
def triangulate(
    workspace: Annotated[Path, typer.Argument(metavar="OUT", help="Workspace with features.h5 and database.db.")],
    poses: Annotated[
        Path,
        typer.Option(
            help="Known cameras: folder of a COLMAP model, of Strecha's NAME.camera files or of 4 x 4 poses "
            "(7-Scenes), transforms.json (nerfstudio), or TUM trajectory."
        ),
    ],
    images: Annotated[
        Path | None, typer.Option("--images", help="Folder of the photos. By default that of the extraction.")
    ] = None,
    as_json: Json = False,
) -> int:
    """Triangulate the matches for cameras whose poses are known.

    Poses stay as they are, and so do intrinsics if the file has some; else these are refined. Writes triangulated/0;
    the models in sparse/ stay as they are. The exit status is 1 if images have no pose or no points, or if hardly any
    match agrees with the poses.
    """
    done = models.triangulate(workspace, poses, photos=images)
    print(json.dumps(done.as_dict()) if as_json else done.format())
    return done.exit_status
