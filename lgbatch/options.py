"""Command line options made from the settings: one source for names, types, defaults and help."""

import functools
import inspect
import logging
import sys
from collections.abc import Callable
from dataclasses import Field, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from lgbatch.config import Settings, preset
from lgbatch.errors import LgbatchError

FAILED = 2
INTERRUPTED = 130

Models = Annotated[
    Path | None, typer.Option("--models", help="Folder of the ONNX models.", show_default="the user's cache folder")
]
WorkspaceFolder = Annotated[
    Path, typer.Option("-w", "--workspace", help="Folder of features.h5, pairs.txt, matches.h5, database.db, sparse/.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object on standard output.")]

_CONFIG = Annotated[
    str | None, typer.Option("--config", help="Preset, or TOML file, with other defaults for the settings.")
]
_DEBUG = Annotated[bool, typer.Option("--debug", help="Show the full traceback of an error, and COLMAP's log.")]


def command(app: typer.Typer, *settings: str) -> Callable[[Callable[..., int]], Callable[..., None]]:
    """Register a function as a command of its own name, with an option for each named setting.

    The function takes the resulting Settings as `settings` and returns the exit status. What it raises is told in
    one line: exit status 2 for what the user can mend, and the traceback only with --debug.
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

            status = call() if debug else _told_in_one_line(call)
            raise typer.Exit(status)

        parameters = [*own, *extra]
        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
        app.command(function.__name__)(wrapper)
        return wrapper

    return register


def _told_in_one_line(call: Callable[[], int]) -> int:
    try:
        return call()
    except LgbatchError as error:
        print(f"lgbatch: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("lgbatch: interrupted; the same command goes on from what is finished", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        return FAILED
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        print(
            f"lgbatch: {type(error).__name__}: {reason}; this is a bug in lgbatch, please report what --debug shows",
            file=sys.stderr,
        )
        return FAILED


def _annotation(f: "Field[Any]") -> Any:
    return Annotated[
        f.type | None,  # type: ignore[operator]
        typer.Option(f"--{f.name.replace('_', '-')}", help=f.metadata["help"], show_default=str(f.default)),
    ]


def _parameter(name: str, annotation: Any, default: Any = None) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
