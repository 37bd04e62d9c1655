"""From a folder of photos to a COLMAP model: all stages, one after the other.

Each stage leaves a file that the next one reads, and skips what that file already holds.
"""

import sys
from pathlib import Path
from typing import Any

from lgbatch.colmap.database import check_camera_model
from lgbatch.colmap.import_stores import import_stores
from lgbatch.config import Settings
from lgbatch.errors import InputError
from lgbatch.export.models import ensure_models
from lgbatch.features.extract import extract
from lgbatch.matching.match import match
from lgbatch.pairing.candidates import make_pairs
from lgbatch.pairing.pairs_file import write_pairs
from lgbatch.photos.crawl import Crawl, crawl
from lgbatch.pipelines.summary import Summary
from lgbatch.reconstruction.reconstruct import reconstruct
from lgbatch.runtime.precision import stages_kind
from lgbatch.runtime.registry import default_folder
from lgbatch.workspace.folder import Workspace
from lgbatch.workspace.lock import locked


def run(
    images: str | Path,
    out: str | Path,
    *,
    models: str | Path | None = None,
    settings: Settings | None = None,
    retry_failed: bool = False,
    **changes: Any,
) -> Summary:
    """Reconstruct the photos below `images`; everything lands in `out`.

    `changes` are settings by name, such as max_keypoints=1024; or give all of them as `settings`. `models` is the
    folder of the ONNX models, which are made in it when they are missing. Leaves features.h5, pairs.txt,
    matches.h5, database.db, sparse/0 and summary.json. Photos and pairs that could not be used are in the
    result's `failures`; they are not tried again later, unless with `retry_failed`. What is finished is not done
    again while nothing has changed. Raises LgbatchError when the run cannot start or go on, or when another one is
    going on in `out`.
    """
    if settings is None:
        settings = Settings.load(**changes)
    elif changes:
        raise InputError("give either settings or single changes to the defaults")
    images, workspace = Path(images), Workspace(Path(out))
    models = Path(models) if models else default_folder()
    check_camera_model(settings.camera_model)  # what is wrong shows at once, not after an hour of matching
    found = crawl(images)
    with locked(workspace.root, make=True):
        return _run(images, workspace, found, models, settings, retry_failed)


def _run(
    images: Path, workspace: Workspace, found: Crawl, models: Path, settings: Settings, retry_failed: bool
) -> Summary:
    summary = Summary(settings)
    with summary.timed("export"):
        ensure_models(models, settings.extractor, ["extractor", stages_kind(settings)])
    with summary.timed("extract"):
        extracted = extract(
            images, workspace.features, models=models, settings=settings, found=found, retry_failed=retry_failed
        )
    summary.add_extracted(extracted)
    with summary.timed("pairs"):
        # Not all that the store holds: there may be photos in it that have left the folder since.
        failed = {failure.name for failure in extracted.failures if failure.stage == "extract"}
        names = [ref.name for ref in found.images if ref.name not in failed]
        write_pairs(workspace.pairs, make_pairs(names, settings))
    with summary.timed("match"):
        matched = match(
            workspace.pairs,
            workspace.features,
            workspace.matches,
            models=models,
            settings=settings,
            retry_failed=retry_failed,
        )
    summary.add_matched(matched)
    with summary.timed("import"):
        import_stores(workspace, images, matched.usable(names), settings)
    summary.add_reconstruction(
        reconstruct(
            workspace.database,
            images,
            workspace.sparse,
            settings=settings,
            progress=sys.stderr.isatty(),
        )
    )
    summary.write(workspace.summary)
    return summary
