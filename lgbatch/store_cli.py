"""The commands that look after the stores: `lgbatch info` and `lgbatch pack`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from lgbatch.config import Settings
from lgbatch.info import gather, in_lines
from lgbatch.options import Json, command
from lgbatch.pack import pack as pack_store

app = typer.Typer(pretty_exceptions_enable=False)


@command(app)
def info(
    place: Annotated[Path, typer.Argument(metavar="[WORKSPACE|FILE]", help="Workspace, or a file.")] = Path(),
    as_json: Json = False,
    *,
    settings: Settings,
) -> int:
    """Say what is in the stores and the database, what made it, and how much disk it takes."""
    found = gather(place)
    print(json.dumps({"files": found}) if as_json else in_lines(found))
    return 0


@command(app)
def pack(
    store: Annotated[Path, typer.Argument(help="A features.h5 or matches.h5.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="New file.", show_default="in the place of the store")
    ] = None,
    as_json: Json = False,
    *,
    settings: Settings,
) -> int:
    """Copy a store into one compact HDF5 file, without the space that nothing uses any more."""
    done = pack_store(store, output)
    if as_json:
        print(json.dumps({"path": str(done.path), "bytes_before": done.before, "bytes": done.after}))
    else:
        print(f"{done.path}: {done.after} bytes; {store} had {done.before}")
    return 0
