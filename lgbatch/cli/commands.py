"""The commands of `lgbatch`, each imported when it is called: `lgbatch match` does not load what draws reports."""

import importlib
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

import lgbatch


class _Command(NamedTuple):
    module: str
    """Module of lgbatch.cli with an `app` that has the command or, for a group of commands, is the group."""
    help: str
    """The first sentence of the command's docstring, for the list of commands."""


COMMANDS = {
    "run": _Command("stages", "Reconstruct a folder of photos."),
    "extract": _Command("stages", "Extract local features of every photo into features.h5."),
    "pairs": _Command("stages", "Choose the image pairs to match, and list them in pairs.txt."),
    "match": _Command("stages", "Match the pairs into matches.h5, and update database.db."),
    "reconstruct": _Command("stages", "Map the images into sparse/."),
    "refine": _Command("stages", "Refine the models in sparse/ again."),
    "infer": _Command("examples", "Match two photos, and draw the matches."),
    "demo": _Command("examples", "Reconstruct a small rendered scene, and report the errors."),
    "errors": _Command("workspace", "List the photos and pairs that failed."),
    "info": _Command("workspace", "Describe the stores and the database."),
    "report": _Command("workspace", "Write report.html: the result, and why photos are missing."),
    "remove": _Command("workspace", "Remove images and their pairs from the stores."),
    "pack": _Command("workspace", "Copy a store into a compact file."),
    "repair": _Command("workspace", "Keep what can be read of a damaged store."),
    "evaluate": _Command("models.evaluate", "Compare a model with ground truth."),
    "georeference": _Command("models.georeference", "Move models into a metric frame, by GPS or control points."),
    "triangulate": _Command("models.triangulate", "Triangulate the matches for cameras whose poses are known."),
    "localize": _Command("models.localize", "Find the poses of new photos in a finished model."),
    "undistort": _Command("models.undistort", "Undistort the photos of a model, for other programs."),
    "convert": _Command("models.convert", "Convert models, features and matches for other programs."),
    "view": _Command("models.view", "Show a model in Rerun."),
    "export": _Command("export", "Export an extractor and its LightGlue to ONNX."),
    "doctor": _Command("doctor", "Report what this machine uses and what it lacks."),
    "bench": _Command("bench", "Benchmarks."),
    "shard": _Command("shard", "Extract and match a large set on several machines."),
}


class LazyGroup(TyperGroup):
    """The group of COMMANDS. It lists them by their help, and loads the one that is called."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, command in COMMANDS.items():
            self.add_command(TyperCommand(name, help=command.help))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the name, the command and its arguments, as the base class does; here the command is loaded."""
        name, found, arguments = super().resolve_command(ctx, args)
        return name, load(name) if name and found else found, arguments


def load(name: str) -> Any:
    """Import and build a command or group of COMMANDS: a click command."""
    app: typer.Typer = importlib.import_module(f"lgbatch.cli.{COMMANDS[name].module}").app
    if name in lgbatch.__all__:
        getattr(lgbatch, name)  # the function that the command calls: a library that it lacks is told at the start
    for info in app.registered_commands:
        if info.name == name:
            return typer.main.get_command_from_info(info, pretty_exceptions_short=False, rich_markup_mode=None)
    return typer.main.get_group(app)
