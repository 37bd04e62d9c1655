"""Command line options made from the settings: one source for names, types, defaults and help."""

import functools
import inspect
import logging
import sys
import traceback
from collections.abc import Callable
from dataclasses import Field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from lgbatch.config import Settings, preset
from lgbatch.errors import LgbatchError
from lgbatch.interrupt import Interrupted, handled

FAILED = 2
INTERRUPTED = 130

Models = Annotated[
    Path | None, typer.Option("--models", help="Folder of the ONNX models.", show_default="the user's cache folder")
]
WorkspaceFolder = Annotated[
    Path, typer.Option("-w", "--workspace", help="Folder of features.h5, pairs.txt, matches.h5, database.db, sparse/.")
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Try again what failed before: see `lgbatch errors`.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object on standard output.")]

_CONFIG = Annotated[
    str | None, typer.Option("--config", help="Preset, or TOML file, with other defaults for the settings.")
]
_DEBUG = Annotated[bool, typer.Option("--debug", help="Show the full traceback of an error, and COLMAP's log.")]


def command(app: typer.Typer, *settings: str) -> Callable[[Callable[..., int]], Callable[..., None]]:
    """Register a function as a command of its own name, with an option for each named setting.

    The function takes the resulting Settings as `settings` and returns the exit status. What it raises is told in
    one line, with exit status 2; the traceback comes before that line, and only with --debug.
    """
    known = {f.name: f for f in fields(Settings)}

    def register(function: Callable[..., int]) -> Callable[..., None]:
        own = [p for p in inspect.signature(function).parameters.values() if p.name != "settings"]
        extra = [_parameter(name, _annotation(known[name])) for name in settings]
        extra += [_parameter("config", _CONFIG), _parameter("debug", _DEBUG, default=False)]

        @functools.wraps(function)
        def wrapper(**given: Any) -> None:
            debug, config = given.pop("debug"), given.pop("config")
            changes = {name: given.pop(name) for name in settings}
            if debug:
                logging.basicConfig()
                logging.getLogger("lgbatch").setLevel(logging.DEBUG)

            def call() -> int:
                loaded = Settings.load(preset(config) if config else None, **changes)
                return function(**given, settings=loaded)

            raise typer.Exit(_told_in_one_line(call, debug))

        parameters = [*own, *extra]
        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
        app.command(function.__name__)(wrapper)
        return wrapper

    return register


def _told_in_one_line(call: Callable[[], int], debug: bool) -> int:
    try:
        with handled():
            return call()
    except BrokenPipeError:
        return FAILED
    except (KeyboardInterrupt, Exception) as error:
        if debug:
            traceback.print_exc()
        print(f"lgbatch: {_in_one_line(error)}", file=sys.stderr)
        if isinstance(error, Interrupted):
            return error.status
        return INTERRUPTED if isinstance(error, KeyboardInterrupt) else FAILED


def _in_one_line(error: BaseException) -> str:
    if isinstance(error, LgbatchError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; the same command goes on from what is finished"
    reason = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {reason}; this is a bug in lgbatch, please report what --debug shows"


def _annotation(f: "Field[Any]") -> Any:
    """The option of a setting. A choice is taken as plain text: Settings refuses a wrong one, in one line."""
    choices = get_args(f.type) if get_origin(f.type) is Literal else ()
    return Annotated[
        (str if choices else f.type) | None,  # type: ignore[operator]
        typer.Option(
            f"--{f.name.replace('_', '-')}",
            help=f.metadata["help"],
            metavar="|".join(choices) or None,
            show_default=str(f.default),
        ),
    ]


def _parameter(name: str, annotation: Any, default: Any = None) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
