"""The import stage: features.h5 and matches.h5 -> database.db."""

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
    """The matches of some images, given with the versions of their features, as import_database takes them."""

    store: MatchStore
    versions: Mapping[str, int]

    def pairs(self) -> Sequence[Pair]:
        return usable_pairs(self.store, self.versions)

    def indices(self, pair: Pair) -> IntArray:
        return self.store.read(pair).indices


@dataclass(frozen=True)
class _StoredFeatures:
    """The keypoints of some images, as import_database takes them."""

    store: FeatureStore
    chosen: Sequence[str]

    def names(self) -> Sequence[str]:
        return self.chosen

    def keypoints(self, name: str) -> FloatArray:
        return self.store.keypoints(name)

    def image_size(self, name: str) -> tuple[int, int]:
        return self.store.image_size(name)


def import_stores(workspace: Workspace, image_folder: Path, names: Sequence[str], settings: Settings) -> DatabaseCounts:
    """Update the database of a workspace from its stores, for the images `names`. Raises as import_database.

    Matches of features that have changed since are left out.
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
