"""The command `lgbatch georeference`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from lgbatch.api import models
from lgbatch.cli.options import Json, command, new_app
from lgbatch.reconstruction.georeference.georeference import GPS_ACCURACY, SURVEY_ACCURACY

app = new_app()


@command(app, example="lgbatch georeference out")
def georeference(
    workspace: Annotated[Path, typer.Argument(metavar="OUT", help="Workspace with the models in sparse/.")],
    positions: Annotated[
        Path | None,
        typer.Option(
            help="File with lines NAME X Y Z in metres, or with the title 'name latitude longitude altitude'. By "
            "default the GPS positions in the EXIF of the photos."
        ),
    ] = None,
    gcp: Annotated[
        Path | None, typer.Option(help="Ground control points instead: OpenDroneMap's gcp_list.txt.")
    ] = None,
    accuracy: Annotated[
        float | None,
        typer.Option(
            help="Standard deviation of the positions, in metres. Those that are off by more than 3 times of it do not "
            f"count. By default {GPS_ACCURACY:g}, and {SURVEY_ACCURACY:g} of control points.",
            show_default=False,
        ),
    ] = None,
    position_priors: Annotated[
        bool,
        typer.Option(
            "--position-priors",
            help="Adjust cameras and points to the positions, too: straightens a model that is bent.",
        ),
    ] = False,
    images: Annotated[
        Path | None, typer.Option("--images", help="Folder of the photos. By default that of the extraction.")
    ] = None,
    as_json: Json = False,
) -> int:
    """Move models into a metric frame, by GPS or control points.

    Writes georeferenced/N, with x east, y north and z up in metres, and georeference.json in it: the transforms from
    sparse/N and to the earth, and the residuals. The models in sparse/ stay as they are. The exit status is 1 if the
    positions are too close together to tell scale and orientation well, or do not determine them for all models.
    """
    done = models.georeference(
        workspace, positions=positions, gcp=gcp, accuracy=accuracy, position_priors=position_priors, photos=images
    )
    print(json.dumps(done.as_dict()) if as_json else done.format())
    return done.exit_status
