"""The import stage: brings the COLMAP database of a workspace up to date with its features and matches."""

import shutil
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from lgbatch.colmap.database import DatabaseCounts, import_database
from lgbatch.colmap.ownership import is_marked
from lgbatch.colmap.sensors.calibration import FOLDERS_FILE, read_calibration
from lgbatch.colmap.sensors.rigs import Rigs, read_rigs
from lgbatch.colmap.sources import FeatureSource, MatchSource
from lgbatch.colmap.stored import JoinedFeatures, JoinedMatches, StoredFeatures, StoredMatches
from lgbatch.config import Settings
from lgbatch.pairing.image_names import read_image_pairs
from lgbatch.photos.coordinates import is_mirrored
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import MatchStore
from lgbatch.types import Pair
from lgbatch.workspace.folder import Workspace
from lgbatch.workspace.ledger import Ledger
from lgbatch.workspace.stage import Failures, StageRun, run_stage
from lgbatch.workspace.stage_cache import digest, recorded_settings, signature, was_imported_by_0_1

Sources = tuple[FeatureSource, MatchSource]


def import_stores(
    workspace: Workspace, image_folder: Path, names: Sequence[str], pairs_file: Path, settings: Settings
) -> DatabaseCounts:
    """Make the database of a workspace hold exactly the images `names` that are in the folder, and their listed pairs.

    Skips images whose photo has left the folder, and matches computed from earlier versions of the features. A database
    that lgbatch wrote is built anew if it has anything else; to one of COLMAP or of the user, rows are only added.
    Raises DatabaseError and InputError as import_database does, and StoreError if a store cannot be read.
    """
    failed = _failed(workspace)
    names = [name for name in names if name not in failed]
    present = [name for name in names if (image_folder / name).is_file()]
    stage = StageRun(
        name="import",
        folder=workspace.root,
        settings=settings,
        inputs={
            "images": str(image_folder.resolve()),
            "names": digest(present),
            "pairs": signature(pairs_file),
            "failed": digest(sorted(failed)),
            "features": signature(workspace.features),
            "matches": signature(workspace.matches),
        }
        | {f"calibration {path.name}": signature(path) for path in _calibration_files(settings)}
        | ({"rigs": signature(Path(settings.rig_config))} if settings.rig_config else {}),
        outputs=lambda: [workspace.database],
        result=DatabaseCounts,
        paths={"pairs": pairs_file},
    )

    before = recorded_settings(workspace.root)
    cameras = ("camera_mode", "camera_model", "camera_params", "calibration", "rig_config")
    has_file = settings.calibration or settings.rig_config
    cameras_as_before = not has_file and all(before.get(name) == getattr(settings, name) for name in cameras)

    def import_listed(_: Failures) -> DatabaseCounts:
        counts = _import(workspace, None, image_folder, present, failed, pairs_file, settings)
        return replace(counts, edited_cameras=counts.edited_cameras if cameras_as_before else 0)

    return replace(run_stage(stage, import_listed), absent_images=len(names) - len(present))


def import_joined(
    workspace: Workspace,
    image_folder: Path,
    names: Sequence[str],
    pairs_file: Path,
    settings: Settings,
    replaced: Collection[Pair],
) -> DatabaseCounts:
    """Make the database of the second try: that of the workspace, with the features and matches of both.

    The keypoints of the second try follow the others, in each image. Its matches follow the others or, of the
    `replaced` pairs, replace them. Two-view geometries of pairs whose matches stay are kept. Raises as import_stores.
    """
    failed = _failed(workspace)
    present = [name for name in names if name not in failed and (image_folder / name).is_file()]
    if not workspace.second.database.exists():
        shutil.copyfile(workspace.database, workspace.second.database)
    return _import(workspace, workspace.second, image_folder, present, failed, pairs_file, settings, replaced)


def _failed(workspace: Workspace) -> set[str]:
    """The images and pairs that failed, of which stores may have stale items."""
    return Ledger(workspace.root).failed_items(("crawl", "extract", "match"))


def _import(
    workspace: Workspace,
    second: Workspace | None,
    image_folder: Path,
    present: Sequence[str],
    failed: Collection[str],
    pairs_file: Path,
    settings: Settings,
    replaced: Collection[Pair] = (),
) -> DatabaseCounts:
    """Import the stores of the workspace into its database, or those of both into that of the second try."""
    applied = recorded_settings(workspace.root).get("rig_config")  # by an earlier import; without the setting, dropped
    rigs = read_rigs(settings) or (Rigs(Path(applied), ()) if applied and is_marked(workspace.database) else None)
    with ExitStack() as stack:
        features = stack.enter_context(FeatureStore(workspace.features))
        matches = stack.enter_context(MatchStore(workspace.matches))
        listed = read_image_pairs(pairs_file, {*features.names(), *failed}, features.image_folder).pairs
        paired = frozenset(listed.images())
        if failed:
            good = (" ".join(pair) not in failed for pair in listed)
            listed = listed.where(np.fromiter(good, np.bool_, len(listed)))
        records = {name: features.record(name) for name in present}
        versions = {name: record.version for name, record in records.items()}
        sources: Sources = (StoredFeatures(features, present), StoredMatches(matches, listed, versions))
        if second:
            counts = {name: record.keypoints for name, record in records.items()}
            others = _second_sources(stack, second, present, listed)
            sources = JoinedFeatures(sources[0], others[0]), JoinedMatches(sources[1], others[1], counts, replaced)
        done = import_database(
            (second or workspace).database,
            image_folder,
            *sources,
            camera_mode=settings.camera_mode,
            camera_model=settings.camera_model,
            calibration=read_calibration(settings),
            rigs=rigs,
            gravity=settings.rotation != "none",
            view=second is not None or is_marked(workspace.database) or was_imported_by_0_1(workspace.root),
            progress=True,
        )
        unpaired = tuple(name for name in present if name not in paired)
        mirrored = sum(is_mirrored(features.orientation(name)) for name in present)
    return replace(done, unpaired=unpaired, mirrored_images=mirrored)


def _second_sources(stack: ExitStack, second: Workspace, present: Sequence[str], listed: Sequence[Pair]) -> Sources:
    """The features and matches of the second try, of its pairs that are listed, and their images that are present.

    Its stores may have those of earlier second tries, too.
    """
    features = stack.enter_context(FeatureStore(second.features))
    matches = stack.enter_context(MatchStore(second.matches))
    failed = _failed(second)
    tried = set(map(frozenset, read_image_pairs(second.pairs, present, None).pairs))
    listed = [pair for pair in listed if frozenset(pair) in tried]
    paired = {name for pair in listed for name in pair}
    names = [name for name in present if name in paired and name in features and name not in failed]
    versions = {name: features.record(name).version for name in names}
    return StoredFeatures(features, names), StoredMatches(matches, listed, versions)


def _calibration_files(settings: Settings) -> list[Path]:
    cameras = Path(settings.calibration)
    return [cameras, cameras.with_name(FOLDERS_FILE)] if settings.calibration else []
