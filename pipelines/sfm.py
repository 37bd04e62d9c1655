"""Photos to a COLMAP model: all stages in order, as `lgbatch run`.

Each stage writes a file that the next stage reads, and skips the items that are already in its file.
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
    """Reconstruct the photos below `images` into the workspace `out`.

    Writes features.h5, pairs.txt, matches.h5, database.db, sparse/0 and summary.json. Finished stages are skipped as
    long as their input is unchanged. `models` is the folder of the ONNX models; missing ones are exported first. Pass
    either `settings`, or changes to the defaults by name, such as max_keypoints=1024.

    Photos and pairs that cannot be used are in the summary's `failures`. Later runs skip them unless `retry_failed` is
    set. Raises LgbatchError if the run cannot start or continue, or if another command works in `out`.
    """
    if settings is None:
        settings = Settings.load(**changes)
    elif changes:
        raise InputError("pass either settings or single changes, not both")
    images, workspace = Path(images), Workspace(Path(out))
    models = Path(models) if models else default_folder()
    check_camera_model(settings.camera_model)  # here, not after an hour of matching
    crawled = crawl(images)
    with locked(workspace.root, create=True):
        return _run(images, workspace, crawled, models, settings, retry_failed)


def _run(
    images: Path, workspace: Workspace, crawled: Crawl, models: Path, settings: Settings, retry_failed: bool
) -> Summary:
    summary = Summary(settings)
    with summary.timed("export"):
        ensure_models(models, settings.extractor, ["extractor", stages_kind(settings)])
    with summary.timed("extract"):
        extracted = extract(
            images, workspace.features, models=models, settings=settings, crawled=crawled, retry_failed=retry_failed
        )
    summary.add_extracted(extracted)
    with summary.timed("pairs"):
        # Not features.names(): the store may hold photos that have since left the folder.
        failed = {failure.name for failure in extracted.failures if failure.stage == "extract"}
        names = [ref.name for ref in crawled.images if ref.name not in failed]
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
