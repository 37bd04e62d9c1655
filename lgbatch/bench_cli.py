"""The commands `lgbatch bench ...`. Without a command, it is `lgbatch bench match`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from lgbatch.bench import extraction, matching, whole
from lgbatch.config import Settings
from lgbatch.models import default_folder
from lgbatch.options import Json, Models, command


class _MatchByDefault(TyperGroup):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["match", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_MatchByDefault,
    help="Measure, and compare with what else there is. `lgbatch bench PHOTOS` is `lgbatch bench match PHOTOS`; its "
    "options are told by `lgbatch bench match --help`.",
    short_help="Measure, and compare with what else there is.",
    pretty_exceptions_enable=False,
)

MATCH = ("extractor", "max_keypoints", "resize", "filter_threshold", "device", "threads", "workers")
EXTRACT = ("max_keypoints", "resize", "device", "threads")
RUN = ("extractor", "max_keypoints", "resize", "pairing", "window", "camera_mode", "mapper", "device", "threads")
EFFORT = matching.Effort()


@command(app, *MATCH)
def match(
    images: Annotated[
        Path | None, typer.Argument(help="Folder of photos that overlap.", show_default="the demo's")
    ] = None,
    others: Annotated[Path | None, typer.Option(help="Folder of photos that do not overlap with them.")] = None,
    pairs: Annotated[int, typer.Option(min=1, help="Most pairs of the photos.")] = EFFORT.pairs,
    other_pairs: Annotated[int, typer.Option(min=0, help="Most pairs that do not overlap.")] = EFFORT.other_pairs,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds, of which the median is told.")] = EFFORT.repeats,
    seconds: Annotated[
        float, typer.Option(min=0, help="About how long a turn takes, which gets as many of the pairs.")
    ] = EFFORT.seconds,
    workspace: Annotated[
        Path | None, typer.Option("-w", "--workspace", help="Folder where features are kept.", show_default="none")
    ] = None,
    models: Models = None,
    as_json: Json = False,
    *,
    settings: Settings,
) -> int:
    """Match pairs with this engine, with the single graph and, where it is installed, with PyTorch LightGlue."""
    effort = matching.Effort(pairs=pairs, other_pairs=other_pairs, repeats=repeats, seconds=seconds)
    report = matching.run(
        images, others, models=models or default_folder(), settings=settings, effort=effort, workspace=workspace
    )
    print(json.dumps(report.as_dict()) if as_json else report.in_words())
    return 0


@command(app, *EXTRACT)
def extract(
    images: Annotated[Path | None, typer.Argument(help="Folder of photos.", show_default="the demo's")] = None,
    truth: Annotated[Path | None, typer.Option(help="Folder of their known cameras, NAME.camera.")] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="An extractor; may be given several times.", show_default="all")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds, of which the median is told.")] = 3,
    models: Models = None,
    as_json: Json = False,
    *,
    settings: Settings,
) -> int:
    """The extractors side by side: photos a second, PyTorch's, and what their features are good for."""
    report = extraction.run(
        images, truth, models=models or default_folder(), settings=settings, extractors=only or (), repeats=repeats
    )
    print(json.dumps(report.as_dict()) if as_json else report.in_words())
    return 0


@command(app, *RUN)
def run(
    images: Annotated[Path, typer.Argument(help="Folder of photos; folders in it are searched too.")],
    truth: Annotated[Path | None, typer.Option(help="Folder of their known cameras, NAME.camera.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each, of which the median is told.")] = 3,
    models: Models = None,
    as_json: Json = False,
    *,
    settings: Settings,
) -> int:
    """From photos to a model: `lgbatch run` against COLMAP's own way with SIFT, whole processes in turn."""
    report = whole.run(images, truth, models=models or default_folder(), settings=settings, repeats=repeats)
    print(json.dumps(report.as_dict()) if as_json else report.in_words())
    return 0
