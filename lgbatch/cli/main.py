"""The entry point of the command `lgbatch`, which has the commands of commands.py."""

import io
import os
import sys
from typing import Annotated

import typer

from lgbatch._version import __version__
from lgbatch.cli.commands import LazyGroup
from lgbatch.cli.options import FAILED, new_app

app = new_app(
    cls=LazyGroup,
    help="Photos to a COLMAP model with learned features. Start with: lgbatch run photos/ -o out/",
    no_args_is_help=True,
    epilog="Run `lgbatch COMMAND --help` for the options of a command.",
)


def _print_version(requested: bool) -> None:
    if requested:
        print(__version__)
        raise typer.Exit


@app.callback()
def _lgbatch(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run a command with the arguments of the process.

    File names are UTF-8 in the stores and in COLMAP. In a locale of another encoding, such as Latin-1, Python would
    read and open them in that encoding: the process then starts again in Python's UTF-8 mode.
    """
    if sys.getfilesystemencoding() != "utf-8" and sys.executable:
        arguments = [sys.executable, "-X", "utf8", *sys.orig_argv[1:]]
        os.execve(sys.executable, arguments, os.environ | {"PYTHONUTF8": "1"})
    for stream in sys.stdout, sys.stderr:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names may not be encodable
    try:
        app()
    except (OSError, RuntimeError) as error:
        if "--install-completion" not in sys.argv:
            raise
        sys.exit(_report_completion(error))


def _report_completion(error: Exception) -> int:
    """Report that the startup file of the shell cannot be written; Python raises RuntimeError without a home folder."""
    place = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else "there is no home folder"
    way_out = "set HOME to a folder that can be written, or add the output of --show-completion to the startup file"
    print(f"lgbatch: cannot install the completion ({place}): {way_out} of your shell", file=sys.stderr)
    return FAILED
