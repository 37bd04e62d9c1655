"""Command-line options, generated from the settings: one source for names, types, defaults and help."""

import functools
import gc
import inspect
import logging
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import Field
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from lgbatch.config import Settings, as_input_error, settings_used_by
from lgbatch.configs import preset
from lgbatch.configs.fields import COMMON, MACHINE, RERUNS, meta
from lgbatch.errors import InputError, LgbatchError
from lgbatch.runtime.packages import import_hint
from lgbatch.workspace.signals import Interrupted, handle_signals

FAILED = 2
INTERRUPTED = 130
OUTPUT = "Output"
_GROUPS_LAST = (RERUNS, MACHINE, OUTPUT)

ImageFolder = Annotated[Path, typer.Argument(help="Folder of photos, searched with its subfolders.", metavar="PHOTOS")]
Models = Annotated[
    Path | None,
    typer.Option(
        "--models",
        help="Folder of the ONNX models. By default lgbatch/ in the user's cache folder.",
        rich_help_panel=MACHINE,
    ),
]
WorkspaceFolder = Annotated[
    Path,
    typer.Option("-w", "--workspace", help="Folder of features.h5, pairs.txt, matches.h5, database.db and sparse/."),
]
OutputFolder = Annotated[
    Path,
    typer.Option("-o", "--output", "-w", "--workspace", help="Workspace: the folder for all results."),
]
RetryFailed = Annotated[
    bool,
    typer.Option(
        "--retry-failed", help="Retry photos and pairs that failed; see `lgbatch errors`.", rich_help_panel=RERUNS
    ),
]
RefinedDatabase = Annotated[
    Path | None,
    typer.Option(
        "--write-database",
        metavar="FILE",
        help="Also write a copy of database.db with the refined keypoints and intrinsics, to map again with COLMAP.",
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print the result as one JSON object on standard output.", rich_help_panel=OUTPUT),
]

_CONFIG = Annotated[str | None, typer.Option("--config", help="Preset (fast, detailed) or TOML file of settings.")]
_DEBUG = Annotated[
    bool, typer.Option("--debug", help="Print tracebacks, and the log of COLMAP.", rich_help_panel=OUTPUT)
]


_VALIDATOR_WORDS = re.compile("Value error, |, unable to parse string as an? \\w+")


class GroupedCommand(TyperCommand):
    """A command whose help lists the options in groups, the common ones first."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """Parse the command line. Messages on invalid values lack the prefix of the library that validates them."""
        try:
            return super().make_context(*arguments, **options)
        except typer.BadParameter as error:
            error.message = _VALIDATOR_WORDS.sub("", error.message)
            raise

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments and each group of options."""
        groups: dict[str, list[tuple[str, str]]] = {"Arguments": [], COMMON: []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            panel = getattr(parameter, "rich_help_panel", None)
            default = "Arguments" if parameter.param_type_name == "argument" else COMMON
            if record:
                groups.setdefault(panel or default, []).append(record)
        last = [name for name in _GROUPS_LAST if name in groups]
        for name in [*(name for name in groups if name not in last), *last]:
            if groups[name]:
                with formatter.section(name):
                    formatter.write_dl(groups[name])


def new_app(**options: Any) -> typer.Typer:
    """A group of commands with plain-text help."""
    return typer.Typer(
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        **options,
    )


def command(
    app: typer.Typer, *users: str, example: str, instead_of: Mapping[str, str] = MappingProxyType({})
) -> Callable[[Callable[..., int]], Callable[..., None]]:
    """Register a function as a command of its own name, with an option for each setting that `users` read.

    `users` are stages and commands as in `config.Meta.users`. The function takes the resulting Settings as `settings`
    and returns the exit status; without `users` it takes no settings. An exception ends the command with one line and
    exit status 2; --debug prints the traceback before that line. The help ends with `example`. `instead_of` maps an
    option of the function to the stage that the command skips if the option is given.
    """
    options = settings_used_by(*users)

    def register(function: Callable[..., int]) -> Callable[..., None]:
        own = [p for p in inspect.signature(function).parameters.values() if p.name != "settings"]
        extra = [_parameter(f.name, _annotation(f, users), f.default) for f in options]
        extra += [_parameter("config", _CONFIG, None)] if options else []
        extra += [_parameter("debug", _DEBUG, False)]
        context = _parameter("context", typer.Context)

        @functools.wraps(function)
        def wrapper(context: typer.Context, **arguments: Any) -> None:
            debug, config = arguments.pop("debug"), arguments.pop("config", None)
            values = {f.name: arguments.pop(f.name) for f in options}
            changes = {name: value for name, value in values.items() if _on_command_line(context, name)}
            if debug:
                logging.basicConfig()
                logging.getLogger("lgbatch").setLevel(logging.DEBUG)

            def call() -> int:
                if not options:
                    return function(**arguments)
                with as_input_error():
                    path = preset(config) if config else None
                loaded = Settings.load(path, **changes)
                for option, stage in instead_of.items():
                    if arguments[option]:
                        own = [f.name for f in options if set(meta(f).users) & set(users) == {stage}]
                        _refuse_any(changes.keys() & own, f"--{option} {arguments[option]}")
                _refuse_without_effect(loaded, changes)
                return function(**arguments, settings=loaded)

            raise typer.Exit(_run_reporting_errors(call, debug))

        parameters = [*own, *extra, context]
        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
        app.command(function.__name__, cls=GroupedCommand, epilog=f"Example: {example}")(wrapper)
        return wrapper

    return register


def _on_command_line(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _option_name(name: str) -> str:
    """Return the command-line option of a setting."""
    return f"--{name.replace('_', '-')}"


def _refuse_any(given: Iterable[str], cause: str) -> None:
    """Raise InputError if there is a given setting: it has no effect because of `cause`."""
    for name in sorted(given):
        raise InputError(f"{_option_name(name)} has no effect with {cause}: leave one of them out")


def _refuse_without_effect(settings: Settings, given: Iterable[str]) -> None:
    """Raise InputError if a given setting has no effect with the others."""
    for name in given:
        if other := settings.disabled_by(name):
            value = getattr(settings, other)
            _refuse_any(
                [name], f"--no-{_option_name(other)[2:]}" if value is False else f"{_option_name(other)} {value}"
            )


def _run_reporting_errors(call: Callable[[], int], debug: bool) -> int:
    """Run a command; report an exception in one line. Returns the exit status."""
    gc.freeze()
    gc.enable()  # see __main__.py
    try:
        with handle_signals():
            return call()
    except BrokenPipeError:
        return FAILED
    except (KeyboardInterrupt, Exception) as error:
        if debug:
            traceback.print_exc()
        print(f"lgbatch: {_format_error(error)}", file=sys.stderr)
        if isinstance(error, Interrupted):
            return error.status
        return INTERRUPTED if isinstance(error, KeyboardInterrupt) else FAILED


def _format_error(error: BaseException) -> str:
    if isinstance(error, LgbatchError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; run the same command again to continue"
    if isinstance(error, OSError) and error.strerror:  # a folder that cannot be read, no folder for temporary files
        place = f"{error.filename}: " if error.filename else ""
        return (
            f"{place}{error.strerror}; check the path, its permissions and free space (--debug shows where it failed)"
        )
    reason = str(error).strip().partition("\n")[0]
    if isinstance(error, ImportError) and (hint := import_hint(error)):
        return f"{reason}: {hint}"
    return f"{type(error).__name__}: {reason}; this is a bug in lgbatch, please report the output of --debug"


def _annotation(f: "Field[Any]", users: Sequence[str]) -> Any:
    """The option of a setting in a command with these users. Settings checks ranges, and reports a bad value."""
    name = _option_name(f.name)
    on_or_off = f"{name}/--no-{name[2:]}" if f.default is True else name
    option = typer.Option(on_or_off, help=meta(f).help_in(users), rich_help_panel=meta(f).group)
    return Annotated[f.type, option]


def _parameter(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
