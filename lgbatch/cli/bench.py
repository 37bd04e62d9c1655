"""The commands `lgbatch bench match`, the default, `extract` and `run`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from lgbatch.bench import extraction, matching
from lgbatch.bench.processes import whole
from lgbatch.cli.options import ImageFolder, Json, Models, command, new_app
from lgbatch.config import Settings
from lgbatch.runtime.registry import default_folder


class _MatchByDefault(TyperGroup):
    """A group that runs its command `match` if the arguments name no command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["match", *args]
        return super().parse_args(ctx, args)


app = new_app(
    cls=_MatchByDefault,
    help="Benchmarks. `lgbatch bench PHOTOS` is short for `lgbatch bench match PHOTOS`.",
)
EFFORT = matching.Effort()


@command(app, "bench match", example="lgbatch bench match photos/ --max-keypoints 1024")
def match(
    images: Annotated[
        Path | None,
        typer.Argument(metavar="PHOTOS", help="Folder of overlapping photos. By default photos of the demo."),
    ] = None,
    others: Annotated[Path | None, typer.Option(help="Folder of photos that do not overlap with PHOTOS.")] = None,
    pairs: Annotated[int, typer.Option(min=1, help="Most pairs of PHOTOS.")] = EFFORT.pairs,
    other_pairs: Annotated[int, typer.Option(min=0, help="Most pairs that do not overlap.")] = EFFORT.other_pairs,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds. The median is reported.")] = EFFORT.repeats,
    seconds: Annotated[
        float, typer.Option(min=0, help="Approximate duration of a turn, which sets its number of pairs.")
    ] = EFFORT.seconds,
    workspace: Annotated[
        Path | None, typer.Option("-w", "--workspace", help="Folder to keep the features in. By default temporary.")
    ] = None,
    models: Models = None,
    as_json: Json = False,
    *,
    settings: Settings,
) -> int:
    """Compare the matching of lgbatch with other engines.

    These are the single ONNX graph and, if it is installed, PyTorch LightGlue.
    """
    effort = matching.Effort(pairs=pairs, other_pairs=other_pairs, repeats=repeats, seconds=seconds)
    report = matching.run(
        images, others, models=models or default_folder(), settings=settings, effort=effort, workspace=workspace
    )
    print(json.dumps(report.as_dict()) if as_json else report.format())
    return 0


@command(app, "bench extract", example="lgbatch bench extract photos/ --only disk")
def extract(
    images: Annotated[
        Path | None, typer.Argument(metavar="PHOTOS", help="Folder of photos. By default photos of the demo.")
    ] = None,
    truth: Annotated[Path | None, typer.Option(help="Folder of ground-truth cameras, NAME.camera.")] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Extractor. Repeat the option for several. By default all.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds. The median is reported.")] = 3,
    models: Models = None,
    as_json: Json = False,
    *,
    settings: Settings,
) -> int:
    """Compare the extractors.

    Reports their speed against PyTorch, repeatability, matches and two-view poses.
    """
    report = extraction.run(
        images, truth, models=models or default_folder(), settings=settings, extractors=only or (), repeats=repeats
    )
    print(json.dumps(report.as_dict()) if as_json else report.format())
    return 0


@command(app, "bench run", example="lgbatch bench run photos/ --repeats 1")
def run(
    images: ImageFolder,
    truth: Annotated[Path | None, typer.Option(help="Folder of ground-truth cameras, NAME.camera.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each. The median is reported.")] = 3,
    models: Models = None,
    as_json: Json = False,
    *,
    settings: Settings,
) -> int:
    """Compare `lgbatch run` with COLMAP's SIFT pipeline.

    They run in turn, as whole processes.
    """
    report = whole.run(images, truth, models=models or default_folder(), settings=settings, repeats=repeats)
    print(json.dumps(report.as_dict()) if as_json else report.format())
    return 0
