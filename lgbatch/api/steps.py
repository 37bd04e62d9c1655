"""The stages up to the pairs one by one, as the commands extract and pairs."""

from pathlib import Path
from typing import Any

from lgbatch.api.matching import models_folder, present_images
from lgbatch.colmap.sensors.rigs import check_rigs
from lgbatch.config import Settings
from lgbatch.export.models import ensure_models
from lgbatch.features.extract import extract as extract_features
from lgbatch.features.orient import orient
from lgbatch.pairing.methods import check_sources, in_rounds
from lgbatch.photos.masks import crawl_with_masks
from lgbatch.pipelines.pairs.choose import choose_pairs
from lgbatch.pipelines.pairs.estimate import Estimate
from lgbatch.pipelines.pairs.estimate import estimate_pairs as estimate_workspace_pairs
from lgbatch.pipelines.settings import as_settings
from lgbatch.pipelines.summary import Summary
from lgbatch.runtime.packages import require_pycolmap
from lgbatch.runtime.precision import extractor_kind, stages_kind
from lgbatch.storage.features import FeatureStore
from lgbatch.workspace.folder import Workspace
from lgbatch.workspace.ledger import Ledger
from lgbatch.workspace.lock import locked


def extract(
    photos: str | Path,
    workspace: str | Path,
    *,
    models: str | Path | None = None,
    settings: Settings | None = None,
    retry_failed: bool = False,
    **changes: Any,
) -> Summary:
    """Extract the local features of the photos below a folder into features.h5, as `lgbatch extract`.

    Photos are turned upright first: orientations.json says how. Photos whose features are stored are skipped. `models`
    is the folder of the ONNX models, by default that of the command line; missing ones are exported first. Pass either
    `settings`, or changes to the defaults by name, such as max_keypoints=1024.

    Photos that cannot be used are in the summary's `failures`; later calls skip them unless `retry_failed` is set.
    Raises LgbatchError if the extraction cannot start or continue, or if another command works in `workspace`.
    """
    photos, workspace, settings = Path(photos), Path(workspace), as_settings(settings, changes)
    summary, models = Summary(settings, ("orient", "extract")), models_folder(models)
    # before the models are exported: reports a wrong folder
    crawled = crawl_with_masks(photos, settings.masks, settings.camera_mask)
    with locked(workspace, create=True):
        ensure_models(models, settings.extractor, [extractor_kind(settings)])
        with summary.timed("orient"):
            crawled, oriented = orient(crawled, workspace, settings)
        with summary.timed("extract"):
            done = extract_features(
                photos,
                Workspace(workspace).features,
                models=models,
                settings=settings,
                crawled=crawled,
                retry_failed=retry_failed,
            )
    summary.add_oriented(oriented)
    summary.add_extracted(done)
    return summary


def pairs(
    workspace: str | Path,
    *,
    photos: str | Path | None = None,
    models: str | Path | None = None,
    settings: Settings | None = None,
    retry_failed: bool = False,
    **changes: Any,
) -> Summary:
    """Choose the image pairs to match, and list them in pairs.txt, as `lgbatch pairs`.

    With more than 40 photos, pairing "auto" matches and verifies the pairs as it chooses them. `photos` is the folder
    of the photos, by default that of the extraction; the other parameters are those of `extract`. Raises LgbatchError
    if there are no features, or the settings do not fit them.
    """
    workspace, settings = Path(workspace), as_settings(settings, changes)
    summary = Summary(settings, ("pairs", "match", "import"))
    with locked(workspace), summary.timed("pairs"):
        names, folder = _names_to_pair(workspace, photos, settings)
        models = models_folder(models)
        if in_rounds(settings, len(names)):
            require_pycolmap()
            ensure_models(models, settings.extractor, [stages_kind(settings)])
        chosen = choose_pairs(
            Workspace(workspace), names, settings, image_folder=folder, models=models, retry_failed=retry_failed
        )
    summary.pairs = chosen.pairs
    summary.add_chosen(chosen)
    return summary


def estimate_pairs(
    workspace: str | Path,
    *,
    photos: str | Path | None = None,
    models: str | Path | None = None,
    settings: Settings | None = None,
    **changes: Any,
) -> Estimate:
    """Tell how many pairs there will be, and what those that are not matched yet take, as `lgbatch pairs --dry-run`.

    Matches some of them to measure the time, and writes nothing. The parameters are those of `pairs`; raises as
    it does.
    """
    workspace, settings = Path(workspace), as_settings(settings, changes)
    with locked(workspace):
        names, folder = _names_to_pair(workspace, photos, settings)
        models = models_folder(models)
        if in_rounds(settings, len(names)):
            require_pycolmap()
        ensure_models(models, settings.extractor, [stages_kind(settings)])
        return estimate_workspace_pairs(Workspace(workspace), names, settings, image_folder=folder, models=models)


def _names_to_pair(workspace: Path, photos: str | Path | None, settings: Settings) -> tuple[list[str], Path | None]:
    """The images to choose pairs of, and the folder of their photos, if it is known. Checks rigs and sources."""
    with FeatureStore(Workspace(workspace).features) as features:
        names, folder = features.names(), Path(photos) if photos else features.image_folder
    if folder and folder.is_dir():
        names = present_images(names, folder)
    failed = Ledger(workspace).failed_items(("crawl", "extract"))  # features.h5 may have older features of them
    names = [name for name in names if name not in failed]
    check_rigs(settings, names)
    check_sources(settings)
    return names, folder
