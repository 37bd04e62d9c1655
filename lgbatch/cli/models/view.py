"""The command `lgbatch view`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from lgbatch.api import models
from lgbatch.cli.models.undistort import Model, Photos
from lgbatch.cli.options import Json, command, new_app

app = new_app()


@command(app, example="lgbatch view out -o out/model.rrd")
def view(
    source: Annotated[Path, typer.Argument(metavar="OUT", help="Workspace, or folder of a COLMAP model.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Recording to write, a file .rrd. By default the viewer opens."),
    ] = None,
    model: Model = None,
    images: Photos = None,
    as_json: Json = False,
) -> int:
    """Show a model, its cameras and photos in Rerun's viewer.

    Needs `pip install 'lgbatch[view]'`. `rerun FILE.rrd` opens a recording. The exit status is 1 if a photo cannot be
    read.
    """
    done = models.view(source, output, model=model, photos=images)
    print(json.dumps(done.as_dict()) if as_json else done.format())
    return 1 if done.failures else 0
