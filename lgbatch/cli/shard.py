"""The commands `lgbatch shard plan`, `work`, `merge`, `run` and `status`."""

import json
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from lgbatch.cli.options import Json, Models, OutputFolder, command, new_app
from lgbatch.config import Settings
from lgbatch.errors import InputError
from lgbatch.shards.launchers.launcher import run_plan
from lgbatch.shards.launchers.local import LocalLauncher
from lgbatch.shards.launchers.ray import ray_launcher
from lgbatch.shards.launchers.slurm import SlurmJobs, Submitted
from lgbatch.shards.merge import Merged, plan_retry
from lgbatch.shards.merge import merge as merge_units
from lgbatch.shards.object_store import Places, do_unit, exchanged, is_url, publish
from lgbatch.shards.plan import make_plan
from lgbatch.shards.status import read_status
from lgbatch.shards.work import Worker, claim_units, current_step, leased, unit_by_number
from lgbatch.types import counted

app = new_app(help="Extract and match a large set on several machines.\n\nSee docs/shards.md.")
Out = Annotated[Path, typer.Argument(metavar="OUT", help="Workspace of the plan.")]


@command(app, "orient", "extract", "pairs", "match", "import", example="lgbatch shard plan photos/ -o out/")
def plan(
    output: OutputFolder,
    images: Annotated[
        Path | None, typer.Argument(metavar="PHOTOS", help="Folder of photos, searched with its subfolders.")
    ] = None,
    pairs: Annotated[Path | None, typer.Option("--pairs", help="Pairs file to match.")] = None,
    units: Annotated[
        int, typer.Option("--units", min=0, help="Units of each step. 0: units of about ten minutes each.")
    ] = 0,
    retry: Annotated[
        Literal["failed"] | None,
        typer.Option("--retry", help="failed: plan the photos and pairs that failed, once more, instead of a new set."),
    ] = None,
    store: Annotated[
        str, typer.Option("--store", help="URL to have the units at, such as s3://bucket/big, for workers elsewhere.")
    ] = "",
    photos_store: Annotated[
        str,
        typer.Option("--photos-store", help="URL of the same photos, such as s3://bucket/photos, for these workers."),
    ] = "",
    models: Models = None,
    as_json: Json = False,
    *,
    settings: Settings,
) -> int:
    """Plan a large set: cut its extraction into units.

    `lgbatch shard work` does the units, on any machine, and `lgbatch shard merge` plans the next step. This command
    decides how photos are turned upright.
    """
    if retry and (images or pairs or units or models or settings != Settings()):
        raise InputError("--retry failed takes the photos and settings of the plan: give it -o OUT only")
    places = Places(store, photos_store)
    places.check(settings)
    if retry:
        with exchanged(output):
            steps = plan_retry(output)
    elif images is None:
        raise InputError("give the folder of the photos: lgbatch shard plan PHOTOS -o OUT")
    else:
        steps = [make_plan(images, output, models=models, settings=settings, pairs=pairs, units=units)[1]]
        if store:
            publish(output, places)
    if as_json:
        print(json.dumps({"steps": [asdict(step) for step in steps]}))
        return 0
    for step in steps:
        noun = "photo" if step.kind == "extract" else "pair"
        items, seconds = sum(unit.items for unit in step.units), sum(unit.seconds for unit in step.units)
        print(
            f"{step.name}: {counted(items, noun)} in {counted(len(step.units), 'unit')}, about {seconds:.0f} s of work"
        )
    if not steps:
        print("nothing failed: there is nothing to plan")
    return 0


@command(app, "shard", example="lgbatch shard work out/ --claim")
def work(
    out: Annotated[
        str, typer.Argument(metavar="OUT", help="Workspace of the plan, or the URL that it has its units at.")
    ],
    unit: Annotated[
        int | None, typer.Option("--unit", min=0, help="Do this unit of the current step, from 0: for job arrays.")
    ] = None,
    claim: Annotated[
        bool, typer.Option("--claim", help="Do open units until there is none: any number of workers may run.")
    ] = False,
    models: Models = None,
    *,
    settings: Settings,
) -> int:
    """Do units of the current step. A unit that is done already is left as it is.

    The exit status is 1 if photos or pairs of the units failed.
    """
    if claim == (unit is not None):
        raise InputError("give either --unit N or --claim")
    if is_url(out):
        if unit is None:
            raise InputError("units at a URL cannot be claimed: give --unit N, as a job array does")
        chosen, marker = do_unit(out, unit, settings, models)
        print(f"{chosen.name}: {marker.items} of {chosen.items} done, in {marker.seconds:.1f} s")
        return int(bool(marker.failures))
    worker, failed = Worker(Path(out), settings, models), 0
    if claim:
        for done, marker in claim_units(worker):
            print(f"{done.name}: {marker.items} of {done.items} done, in {marker.seconds:.1f} s", flush=True)
            failed += len(marker.failures)
    else:
        step = current_step(worker.folder)
        chosen = unit_by_number(step, unit or 0)
        with leased(worker.folder, step, chosen):  # for those who claim, and `status`: it is done in any case
            marker = worker.do_unit(step, chosen)
        print(f"{chosen.name}: {marker.items} of {chosen.items} done, in {marker.seconds:.1f} s")
        failed = len(marker.failures)
    return int(failed > 0)


@command(app, example="lgbatch shard merge out/")
def merge(out: Out, as_json: Json = False) -> int:
    """Merge the finished units of a step, and plan the next step.

    After the last step, it writes database.db. The exit status is 1 if a unit is missing or damaged, or photos or
    pairs failed.
    """
    with exchanged(out):
        merged = merge_units(out)
    print(json.dumps(asdict(merged)) if as_json else describe(merged))
    return int(bool(merged.missing or merged.damaged or merged.failures))


@command(app, "shard", example="lgbatch shard run out/ --on local --workers 4")
def run(
    out: Out,
    on: Annotated[
        Literal["local", "ray", "slurm"],
        typer.Option(
            "--on", help="Where the workers run: on this machine, as actors of Ray, or as job arrays of SLURM."
        ),
    ] = "local",
    workers: Annotated[
        int,
        typer.Option(
            "--workers",
            min=0,
            help="Workers at the same time. 0: one a GPU, or one for eight cores; with slurm, as many as it allows.",
        ),
    ] = 0,
    sbatch: Annotated[
        str,
        typer.Option("--sbatch", help="slurm: options of sbatch for all jobs, such as '--partition=gpu --gres=gpu:1'."),
    ] = "",
    address: Annotated[
        str | None,
        typer.Option("--address", help="ray: address of the cluster, such as 10.0.0.1:6379. Default: start Ray here."),
    ] = None,
    models: Models = None,
    as_json: Json = False,
    *,
    settings: Settings,
) -> int:
    """Do all units of a plan, and merge each step.

    The last merge writes database.db. If a worker dies, a line says so, and its unit is done again. Ctrl-C ends all
    workers; run the same command to continue. With slurm, the command submits jobs and ends; the jobs do the rest.
    """
    for option, given, use in (("--sbatch", sbatch, "slurm"), ("--address", address, "ray")):
        if given and on != use:
            raise InputError(f"{option} has no effect with --on {on}: leave it out")

    def tell(merged: Merged) -> None:
        if not as_json:
            print(describe(merged), flush=True)

    if on == "slurm":
        submitted = SlurmJobs(settings, workers, models, sbatch).submit(out, tell)
        if submitted:
            print(json.dumps(asdict(submitted)) if as_json else describe_jobs(submitted))
        return 0
    opened = ray_launcher(settings, workers, models, address) if on == "ray" else None
    with opened or nullcontext(LocalLauncher(settings, workers, models)) as launcher:
        merged = run_plan(out, launcher, tell)
    if as_json:
        print(json.dumps(asdict(merged)))
    return int(merged.failures > 0)


@command(app, example="lgbatch shard status out/")
def status(out: Out, as_json: Json = False) -> int:
    """Show the units that are done and open, and the time that is left.

    For each step: how many units are done, claimed and open, and the rate. It reads markers and leases only: it can run
    anywhere, at any time.
    """
    steps = read_status(out)
    print(json.dumps({"steps": [asdict(step) for step in steps]}) if as_json else "\n".join(s.format() for s in steps))
    return 0


def describe(merged: Merged) -> str:
    """What a merge has done, as lines."""
    lines = [f"damaged: {line}; it is to be done again" for line in merged.damaged]
    lines += [f"missing: {name}" for name in merged.missing[:20]]
    if len(merged.missing) > 20:
        lines.append(f"missing: {len(merged.missing) - 20} more")
    if merged.failures:
        lines.append(f"failed: {counted(merged.failures, 'item')}; `lgbatch errors` lists them")
    if merged.next_step:
        lines.append(f"{merged.step} merged; next: {merged.next_step}, {counted(merged.next_units, 'unit')}")
    if merged.finished:
        lines.append(f"finished: {counted(merged.images, 'image')}, {counted(merged.pairs, 'pair')} in database.db")
        lines.append(f"next, map them: {merged.command}")
    return "\n".join(lines)


def describe_jobs(jobs: Submitted) -> str:
    """The jobs of a step, as a line."""
    arrays = f"{counted(jobs.units, 'unit')} in job array {', '.join(jobs.arrays)}; " if jobs.arrays else ""
    return f"{jobs.step}: {arrays}job {jobs.merge_job} merges them and goes on; scripts and logs are in {jobs.logs}"
