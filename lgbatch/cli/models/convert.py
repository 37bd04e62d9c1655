"""The command `lgbatch convert`."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from lgbatch.cli.models.undistort import Model
from lgbatch.cli.options import Json, command, new_app
from lgbatch.errors import InputError
from lgbatch.interchange.models import export_model
from lgbatch.interchange.source import find_source
from lgbatch.interchange.stores import Converted, export_stores, import_stores
from lgbatch.workspace.folder import Workspace

Format = Literal["hloc", "colmap", "nerfstudio", "metashape", "bundler"]

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
        Format | None,
        typer.Option(
            help="nerfstudio: transforms.json. metashape: cameras.xml. bundler: bundle.out. hloc: features.h5, "
            "matches.h5 and pairs.txt. colmap: features and matches as the text that COLMAP imports."
        ),
    ] = None,
    from_: Annotated[
        Literal["hloc", "colmap"] | None, typer.Option("--from", help="Make a workspace of features and matches.")
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
    if (to is None) == (from_ is None):
        raise InputError("give one of --to and --from")
    if from_ is None and (matches or extractor):
        raise InputError(f"--{'matches' if matches else 'extractor'} has no effect without --from: leave it out")
    if from_ is not None:
        if images is None:
            raise InputError("give the folder of the photos with --images")
        files = Workspace(output)
        done = import_stores(source, files, from_, photos=images, matches=matches, extractor=extractor)
    elif to == "hloc" or to == "colmap":
        done = export_stores(Workspace(source), output, to)
    else:
        assert to is not None
        done = export_model(find_source(source, model, images), output, to)
    print(json.dumps(_as_dict(done)) if as_json else done.format())
    return 1 if done.failures else 0


def _as_dict(done: Converted) -> dict[str, object]:
    failures = [{"name": failure.name, "reason": failure.reason} for failure in done.failures]
    counts = {"images": done.images, "pairs": done.pairs, "left_out_pairs": done.left_out_pairs}
    return {"files": list(map(str, done.files)), **counts, "failures": failures}
