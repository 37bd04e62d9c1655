"""The import stage: brings the COLMAP database of a workspace up to date with its features and matches."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lgbatch.colmap.calibration import FOLDERS_FILE, read_calibration
from lgbatch.colmap.database import DatabaseCounts, import_database
from lgbatch.colmap.ownership import is_marked
from lgbatch.config import Settings
from lgbatch.pairing.image_names import read_image_pairs
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import MatchStore
from lgbatch.types import FloatArray, IntArray, Pair
from lgbatch.workspace.folder import Workspace
from lgbatch.workspace.ledger import Ledger
from lgbatch.workspace.stage import Failures, StageRun, run_stage
from lgbatch.workspace.stage_cache import digest, signature, was_imported_by_0_1
from lgbatch.workspace.staleness import usable_pairs


@dataclass(frozen=True)
class _StoredMatches:
    """MatchSource over matches.h5, limited to the pairs of a pairs file and to matches of the current features.

    `versions` maps each image name to the version of its features.
    """

    store: MatchStore
    listed: Sequence[Pair]
    versions: Mapping[str, int]

    def pairs(self) -> Sequence[Pair]:
        return usable_pairs(self.store, self.listed, self.versions)

    def indices(self, pair: Pair) -> IntArray:
        return self.store.read(pair).indices


@dataclass(frozen=True)
class _StoredFeatures:
    """FeatureSource over features.h5, limited to the images `image_names`."""

    store: FeatureStore
    image_names: Sequence[str]

    def names(self) -> Sequence[str]:
        return self.image_names

    def keypoints(self, name: str) -> FloatArray:
        return self.store.keypoints(name)

    def image_size(self, name: str) -> tuple[int, int]:
        return self.store.image_size(name)


def import_stores(
    workspace: Workspace, image_folder: Path, names: Sequence[str], pairs_file: Path, settings: Settings
) -> DatabaseCounts:
    """Make the database of a workspace hold exactly the images `names` that are in the folder, and their listed pairs.

    Skips images whose photo has left the folder, and matches computed from earlier versions of the features. A database
    that lgbatch wrote is built anew if it has anything else; to one of COLMAP or of the user, rows are only added.
    Raises DatabaseError and InputError as import_database does, and StoreError if a store cannot be read.
    """
    failed = Ledger(workspace.root).failed_items(("crawl", "extract", "match"))  # of which stores may have stale items
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
        | {f"calibration {path.name}": signature(path) for path in _calibration_files(settings)},
        outputs=lambda: [workspace.database],
        result=DatabaseCounts,
    )

    def import_listed(_: Failures) -> DatabaseCounts:
        with FeatureStore(workspace.features) as features, MatchStore(workspace.matches) as matches:
            listed = read_image_pairs(pairs_file, features.names(), features.image_folder).pairs
            listed = [pair for pair in listed if " ".join(pair) not in failed]
            return import_database(
                workspace.database,
                image_folder,
                _StoredFeatures(features, present),
                _StoredMatches(matches, listed, {name: features.record(name).version for name in present}),
                camera_mode=settings.camera_mode,
                camera_model=settings.camera_model,
                calibration=read_calibration(settings),
                view=is_marked(workspace.database) or was_imported_by_0_1(workspace.root),
                progress=sys.stderr.isatty(),
            )

    return replace(run_stage(stage, import_listed), absent_images=len(names) - len(present))


def _calibration_files(settings: Settings) -> list[Path]:
    cameras = Path(settings.calibration)
    return [cameras, cameras.with_name(FOLDERS_FILE)] if settings.calibration else []
