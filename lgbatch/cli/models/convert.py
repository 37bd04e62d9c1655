"""The command `lgbatch convert`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from lgbatch.api import models
from lgbatch.cli.models.undistort import Model
from lgbatch.cli.options import Json, command, new_app
from lgbatch.interchange.stores import Converted

app = new_app()


@command(app, example="lgbatch convert dense -o dense --to nerfstudio")
def convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="Workspace, folder of a COLMAP model, or folder of `lgbatch undistort`. With --from, hloc's file of "
            "features, or the folder of COLMAP's text files.",
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write to. With --from, a new workspace.")],
    to: Annotated[
        models.Target | None,
        typer.Option(
            help="nerfstudio: transforms.json. metashape: cameras.xml. bundler: bundle.out. hloc: features.h5, "
            "matches.h5 and pairs.txt. colmap: features and matches as the text that COLMAP imports."
        ),
    ] = None,
    from_: Annotated[
        models.Origin | None, typer.Option("--from", help="Make a workspace of features and matches.")
    ] = None,
    images: Annotated[Path | None, typer.Option("--images", help="Folder of the photos.")] = None,
    matches: Annotated[
        Path | None, typer.Option("--matches", help="With --from: hloc's file of matches, or COLMAP's list.")
    ] = None,
    extractor: Annotated[
        str | None, typer.Option("--extractor", help="With --from hloc: extractor of the features, if it is known.")
    ] = None,
    model: Model = None,
    as_json: Json = False,
) -> int:
    """Convert models, features and matches for other programs.

    With --from, features and matches of hloc or of COLMAP's text become a workspace. The exit status is 1 if an
    image could not be converted.
    """
    done = models.convert(
        source, output, to=to, from_=from_, photos=images, matches=matches, extractor=extractor, model=model
    )
    print(json.dumps(_as_dict(done)) if as_json else done.format())
    return 1 if done.failures else 0


def _as_dict(done: Converted) -> dict[str, object]:
    failures = [{"name": failure.name, "reason": failure.reason} for failure in done.failures]
    counts = {"images": done.images, "pairs": done.pairs, "left_out_pairs": done.left_out_pairs}
    return {"files": list(map(str, done.files)), **counts, "failures": failures}
