"""Photos to a COLMAP model: all stages in order, as `lgbatch run`.

Each stage writes a file that the next stage reads, and skips the items that are already in its file.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from lgbatch.colmap.import_stores import import_stores
from lgbatch.colmap.sensors.calibration import read_calibration
from lgbatch.colmap.sensors.rigs import check_rigs
from lgbatch.config import Settings, Stage
from lgbatch.errors import InputError, LgbatchError
from lgbatch.export.models import ensure_models
from lgbatch.features.extract import Extracted, extract
from lgbatch.features.orient import orient
from lgbatch.matching.match import match
from lgbatch.pairing.methods import check_sources
from lgbatch.pairing.pairs_file import check_pairs
from lgbatch.photos.crawl import Crawl
from lgbatch.photos.masks import crawl_with_masks
from lgbatch.pipelines.pairs.choose import choose_pairs
from lgbatch.pipelines.second_pairs import FirstTry
from lgbatch.pipelines.second_try import outdate_second_try, second_try
from lgbatch.pipelines.settings import as_settings
from lgbatch.pipelines.summary import Summary
from lgbatch.reconstruction.reconstruct import reconstruct
from lgbatch.reconstruction.refinement.refine import refine
from lgbatch.runtime.packages import require_pycolmap
from lgbatch.runtime.precision import extractor_kind, stages_kind
from lgbatch.runtime.registry import default_folder
from lgbatch.types import escape
from lgbatch.workspace.folder import Workspace
from lgbatch.workspace.lock import locked
from lgbatch.workspace.rerun import Rerun

AtEnd = Callable[[Path, Path, bool, bool], None]
"""Called with the workspace, the folder of the photos, whether the run has done anything, and whether it has failed."""


def no_report(workspace: Path, photos: Path, changed: bool, failed: bool) -> None:
    """Do nothing at the end of a run."""


def run(
    images: str | Path,
    out: str | Path,
    *,
    models: str | Path | None = None,
    settings: Settings | None = None,
    pairs: str | Path | None = None,
    retry_failed: bool = False,
    at_end: AtEnd = no_report,
    **changes: Any,
) -> Summary:
    """Reconstruct the photos below `images` into the workspace `out`, as lgbatch.run without its report.

    Calls `at_end` after the last stage, or the one that failed, while the workspace is locked. Raises as lgbatch.run.
    """
    settings = as_settings(settings, changes)
    images, workspace = Path(images), Workspace(Path(out))
    rerun = Rerun(
        settings=settings,
        photos=images,
        workspace=workspace.root,
        models=Path(models) if models else None,
        pairs=Path(pairs) if pairs else None,
    )
    models = rerun.models or default_folder()
    require_pycolmap()  # these two here, not after an hour of matching
    read_calibration(settings)
    crawled = crawl_with_masks(images, settings.masks, settings.camera_mask)
    check_rigs(settings, [ref.name for ref in crawled.images], mapper=settings.mapper)
    if rerun.pairs:
        check_pairs(rerun.pairs)
    else:
        check_sources(settings)
    with locked(workspace.root, create=True):
        try:
            summary = _run(rerun, crawled, models, retry_failed)
        except LgbatchError:
            at_end(workspace.root, images, True, True)
            raise
        at_end(workspace.root, images, not summary.finished_already, False)
        return summary


def _run(rerun: Rerun, crawled: Crawl, models: Path, retry_failed: bool) -> Summary:
    images, workspace, pairs_file, settings = rerun.photos, Workspace(rerun.workspace), rerun.pairs, rerun.settings
    summary = Summary(settings, [stage for stage in get_args(Stage) if stage != "pairs" or not pairs_file])
    with summary.timed("export"):
        ensure_models(models, settings.extractor, [extractor_kind(settings), stages_kind(settings)])
    with summary.timed("orient"):
        crawled, oriented = orient(crawled, workspace.root, settings)
    summary.add_oriented(oriented)
    with summary.timed("extract"):
        extracted = extract(
            images, workspace.features, models=models, settings=settings, crawled=crawled, retry_failed=retry_failed
        )
    summary.add_extracted(extracted)
    with summary.timed("pairs"):
        # Not features.names(): the store may hold photos that have since left the folder.
        failed = {failure.name for failure in extracted.failures if failure.stage == "extract"}
        names = [ref.name for ref in crawled.images if ref.name not in failed]
        if not names:
            raise InputError(_describe_failure(extracted, workspace.root))
        if pairs_file is None:
            chosen = choose_pairs(
                workspace, names, settings, image_folder=images, models=models, retry_failed=retry_failed
            )
            summary.add_chosen(chosen)
            pairs_file = workspace.pairs
    with summary.timed("match"):
        matched = match(
            pairs_file,
            workspace.features,
            workspace.matches,
            models=models,
            settings=settings,
            retry_failed=retry_failed,
        )
    summary.add_matched(matched)
    usable = matched.usable(names)
    outdate_second_try(workspace, usable, pairs_file, settings, retry_failed=retry_failed)
    with summary.timed("import"):
        imported = import_stores(workspace, images, usable, pairs_file, settings)
    summary.add_imported(imported)
    result = reconstruct(workspace.database, images, workspace.sparse, settings=settings, progress=True)
    summary.add_reconstruction(result, rerun)
    first = FirstTry(workspace, images, crawled, usable, pairs_file, result, retry_failed)
    tried = second_try(first, settings)
    summary.add_second_try(tried, rerun)
    if tried.models:
        summary.add_refinement(refine(workspace, images, settings, progress=True))
    summary.write(workspace.summary)
    return summary


def _describe_failure(extracted: Extracted, workspace: Path) -> str:
    """The message if no photo could be extracted."""
    first = extracted.failures[0]
    way_out = f"`lgbatch errors -w {workspace}` lists all"
    return escape(f"no photo can be extracted ({first.name}: {first.reason}): {way_out}")
