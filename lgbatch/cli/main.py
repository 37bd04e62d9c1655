"""The command line. Each module of this package holds a group of commands: one function per command, no logic."""

import io
import sys
from typing import Annotated

import typer

from lgbatch._version import __version__
from lgbatch.cli import bench, doctor, examples, export, stages, workspace
from lgbatch.cli.options import new_app

app = new_app(
    help="Photos to a COLMAP model with learned features. Start with: lgbatch run photos/ -o out/",
    no_args_is_help=True,
    epilog="Run `lgbatch COMMAND --help` for the options of a command.",
)


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _lgbatch(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


for group in stages, examples, workspace, export, doctor:
    app.add_typer(group.app)
app.add_typer(bench.app, name="bench")


def main() -> None:
    """Entry point of the command `lgbatch`."""
    for stream in sys.stdout, sys.stderr:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names with characters that the encoding lacks
    app()
