"""Commands on the files of a workspace: errors, info, report, remove, pack, repair."""

import json
import logging
import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lgbatch.api.run import write_report
from lgbatch.cli.info import describe, format_infos, may_be_store
from lgbatch.cli.options import Json, WorkspaceFolder, command, new_app
from lgbatch.cli.stages import HERE, Images
from lgbatch.errors import InputError
from lgbatch.pipelines.second_try import remove_tried_images
from lgbatch.storage.upkeep.pack import pack as pack_store
from lgbatch.storage.upkeep.remove import remove_absent, remove_images
from lgbatch.storage.upkeep.repair import Repaired
from lgbatch.storage.upkeep.repair import repair as repair_store
from lgbatch.types import counted, escape
from lgbatch.workspace.folder import Workspace
from lgbatch.workspace.ledger import Ledger
from lgbatch.workspace.lock import locked

app = new_app()
_NAMED = 5
"""Damaged items that a message names."""


@command(app, example="lgbatch errors -w out")
def errors(
    workspace: WorkspaceFolder = HERE,
    tracebacks: Annotated[bool, typer.Option("--traceback", help="Print the traceback of each.")] = False,
    as_json: Json = False,
) -> int:
    """List the photos and pairs that failed. `--retry-failed` tries them again."""
    if not workspace.is_dir():
        cause = f"{workspace} is a file" if workspace.exists() else f"there is no folder {workspace}"
        raise InputError(f"{cause}: give the --workspace of a run")
    entries = Ledger(workspace).entries()
    if as_json:
        print(json.dumps({"errors": [asdict(entry) for entry in entries]}))
        return 0
    for entry in entries:
        print(entry.time, entry.failure().format())
        if tracebacks or logging.getLogger("lgbatch").isEnabledFor(logging.DEBUG):
            print(entry.traceback)
    if not entries:
        print(f"no errors in {workspace}")
    return 0


@command(app, example="lgbatch info out")
def info(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Workspace, store or database.")] = Path(),
    as_json: Json = False,
) -> int:
    """Describe the stores and the database.

    Lists contents, provenance and size of each file.
    """
    infos = describe(path)
    print(json.dumps({"files": infos}) if as_json else format_infos(infos))
    return 0


@command(app, example="lgbatch report out")
def report(
    workspace: Annotated[Path, typer.Argument(metavar="OUT", help="Workspace of a run, finished or not.")] = HERE,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The page. By default report.html in the workspace."),
    ] = None,
    images: Images = None,
    as_json: Json = False,
) -> int:
    """Write report.html: the result, and why photos are missing.

    The page holds all that it shows: it opens offline, in any browser. report.json beside it has the same facts. Both
    are made from the files of the workspace, at any time.
    """
    done = write_report(workspace, output, photos=images)
    for note in done.notes:
        print(f"lgbatch: {escape(note)}", file=sys.stderr)
    values = {"page": str(done.page), "facts": str(done.facts), "bytes": done.bytes, "headline": done.headline}
    print(json.dumps(values) if as_json else f"{done.headline}: {done.page}, {done.bytes / 1e6:.1f} MB")
    return 0


@command(app, example="lgbatch remove IMG_0001.jpg day1/IMG_0002.jpg -w out")
def remove(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Images, by their path below the photo folder.")],
    workspace: WorkspaceFolder = HERE,
    as_json: Json = False,
) -> int:
    """Remove images and their pairs from the stores.

    The stores are features.h5 and matches.h5, and those of the second try. The next `lgbatch match` or `run` removes
    the images from database.db. A photo that is still in its folder is extracted again by the next `extract` or `run`.
    """
    files = Workspace(workspace)
    with locked(workspace):
        images, pairs = remove_images(files.features, files.matches, names)
        remove_tried_images(files, names)
    print(
        json.dumps({"images": images, "pairs": pairs})
        if as_json
        else f"removed {counted(images, 'image')} and {counted(pairs, 'pair')}"
    )
    return 0


@command(app, example="lgbatch pack out/features.h5")
def pack(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="A features.h5 or matches.h5.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="New file. By default the store itself.")
    ] = None,
    as_json: Json = False,
) -> int:
    """Copy a store into a compact file.

    The copy has no unused space, and the matches of lgbatch 0.1 are compressed in it.
    Without --output, first removes the images whose photos have left their folder or, from matches.h5, the pairs of
    images that features.h5 beside it does not have.
    """
    if not may_be_store(store):
        cause = f"{store} is not a store" if store.exists() else f"there is no file {store}"
        raise InputError(f"{cause}: give a features.h5 or matches.h5")
    with locked(store.parent) if output is None else nullcontext():
        removed = remove_absent(store) if output is None else 0
        done = pack_store(store, output)
    if as_json:
        print(
            json.dumps(
                {
                    "path": str(done.path),
                    "removed": removed,
                    "bytes_before": done.bytes_before,
                    "bytes": done.bytes_after,
                }
            )
        )
    else:
        items = f", {counted(removed, 'item')} of absent photos removed" if removed else ""
        print(f"{done.path}: {done.bytes_after} bytes; {store} had {done.bytes_before}{items}")
    return 0


@command(app, example="lgbatch repair out/matches.h5")
def repair(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="A features.h5 or matches.h5.")], as_json: Json = False
) -> int:
    """Keep what can be read of a damaged store.

    The items that can be read take the place of the store. The damaged file stays beside it, as STORE.damaged. Run the
    command that failed again: it computes the other items anew. Every array is read, also of a store that seems good.
    """
    with locked(store.parent):
        done = repair_store(store)
    print(json.dumps(asdict(done), default=str) if as_json else _format_repair(store, done))
    return 0


def _format_repair(store: Path, done: Repaired) -> str:
    unit = "image" if done.kind == "features" else "pair"
    if done.aside is None:
        return f"{store}: all {counted(done.kept, unit)} can be read, nothing is changed"
    named = ", ".join(done.damaged[:_NAMED]) + f", and {len(done.damaged) - _NAMED} more" * (len(done.damaged) > _NAMED)
    return (
        f"{store}: {counted(done.kept, unit)} kept, {done.lost} lost ({named}); the damaged file is {done.aside}; "
        "the command that failed computes them again"
    )
