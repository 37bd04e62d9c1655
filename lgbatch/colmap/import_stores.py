"""The import stage: brings the COLMAP database of a workspace up to date with its features and matches."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lgbatch.colmap.database import DatabaseCounts, import_database
from lgbatch.config import Settings
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import MatchStore
from lgbatch.types import FloatArray, IntArray, Pair
from lgbatch.workspace.folder import Workspace
from lgbatch.workspace.stage import Failures, StageRun, run_stage
from lgbatch.workspace.stage_cache import digest, signature
from lgbatch.workspace.staleness import usable_pairs


@dataclass(frozen=True)
class _StoredMatches:
    """MatchSource over matches.h5, limited to matches of the current features.

    `versions` maps each image name to the version of its features.
    """

    store: MatchStore
    versions: Mapping[str, int]

    def pairs(self) -> Sequence[Pair]:
        return usable_pairs(self.store, self.versions)

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


def import_stores(workspace: Workspace, image_folder: Path, names: Sequence[str], settings: Settings) -> DatabaseCounts:
    """Update the database of a workspace with the images `names` and their matches from the stores.

    Skips matches computed from earlier versions of the features. Raises DatabaseError and InputError as
    import_database does, and StoreError if a store cannot be read.
    """
    stage = StageRun(
        name="import",
        folder=workspace.root,
        settings=settings,
        inputs={
            "images": str(image_folder.resolve()),
            "names": digest(list(names)),
            "features": signature(workspace.features),
            "matches": signature(workspace.matches),
        },
        outputs=lambda: [workspace.database],
        result=DatabaseCounts,
    )

    def import_all(_: Failures) -> DatabaseCounts:
        with FeatureStore(workspace.features) as features, MatchStore(workspace.matches) as matches:
            return import_database(
                workspace.database,
                image_folder,
                _StoredFeatures(features, names),
                _StoredMatches(matches, {name: features.record(name).version for name in names}),
                camera_mode=settings.camera_mode,
                camera_model=settings.camera_model,
                rebuild=settings.on_change == "recompute",
                progress=sys.stderr.isatty(),
            )

    return run_stage(stage, import_all)
