"""The files of a workspace, each read if it is there. What cannot be read is told in `notes`; nothing is raised."""

import contextlib
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from lgbatch.config import Settings
from lgbatch.errors import LgbatchError, ModelError
from lgbatch.pairing.pairs_file import read_pairs
from lgbatch.reconstruction.model_folders import numbered_models
from lgbatch.report.database import DatabaseView
from lgbatch.runtime.registry import default_folder
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import MatchStore
from lgbatch.types import PairList
from lgbatch.workspace.folder import Workspace
from lgbatch.workspace.ledger import Entry, Ledger
from lgbatch.workspace.rerun import Rerun
from lgbatch.workspace.stage_cache import recorded_settings, recorded_stages

Values = dict[str, Any]


@dataclass
class Contents:
    """What a workspace holds."""

    files: Workspace
    photos: Path | None = None
    """Folder of the photos; None if no file names it."""
    summary: Values = field(default_factory=dict)
    """summary.json."""
    stages: Values = field(default_factory=dict)
    """The results of the finished stages, by name."""
    orientations: dict[str, int] = field(default_factory=dict)
    """EXIF code by name of the photo."""
    errors: list[Entry] = field(default_factory=list)
    features: FeatureStore | None = None
    matches: MatchStore | None = None
    database: DatabaseView | None = None
    tried: PairList = field(default_factory=lambda: PairList([], np.empty((0, 2), np.int32)))
    """The pairs of pairs.txt."""
    rounds: list[Values] = field(default_factory=list)
    """The lines of pairs.jsonl."""
    models: list[Path] = field(default_factory=list)
    """Folders of the models, in the order of their numbers."""
    notes: list[str] = field(default_factory=list)
    """What could not be read."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing of a run is there."""
        parts = self.summary, self.stages, self.orientations, self.errors, self.models
        return not any(parts) and not any(store is not None for store in (self.features, self.matches, self.database))

    @property
    def is_mapped(self) -> bool:
        """Whether mapping has ended, with or without a model."""
        return bool(self.models) or "reconstruct" in self.stages or "models" in self.summary

    @contextlib.contextmanager
    def noting(self) -> Iterator[None]:
        """Note the error of the block, which ends it."""
        try:
            yield
        except (LgbatchError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            self.notes.append(str(error).partition("\n")[0] or type(error).__name__)

    def rerun(self) -> Rerun:
        """How the workspace was made, as far as its files tell."""
        known = self.summary.get("settings", {}) | recorded_settings(self.files.root)
        try:
            settings = Settings(**{f.name: known[f.name] for f in fields(Settings) if f.name in known})
        except LgbatchError:  # a setting of another version
            settings = Settings()
        models = None
        with contextlib.suppress(ModelError):
            models = default_folder().absolute()
        made = Rerun.of_steps(settings, self.photos or Path("PHOTOS"), self.files.root, default_models=models)
        by_run = self.summary or "reconstruct" not in self.stages or self.files.second.root.is_dir()
        return replace(made, in_steps=not by_run)


@contextlib.contextmanager
def open_contents(workspace: Path, photos: Path | None = None) -> Iterator[Contents]:
    """Open the files of a workspace. `photos` is their folder if it is not that of the extraction."""
    files = Workspace(workspace)
    found = Contents(files)
    with ExitStack() as opened:
        with found.noting():
            found.errors = Ledger(workspace).entries()
        found.summary = _json(found, files.summary)
        with found.noting():
            found.stages = recorded_stages(workspace)
        decided = _json(found, files.orientations).get("images", {})
        with found.noting():
            found.orientations = {name: int(entry["orientation"]) for name, entry in decided.items()}
        _open_stores(found, opened)
        with found.noting():
            if files.pairs.is_file():
                found.tried = PairList.of(read_pairs(files.pairs).pairs)
        with found.noting():
            if files.tried_pairs.is_file():
                found.rounds = [*map(json.loads, files.tried_pairs.read_text(encoding="utf-8").splitlines())]
        found.models = sorted(numbered_models(files.sparse), key=lambda folder: int(folder.name))
        recorded = found.features.image_folder if found.features else None
        found.photos = photos or recorded
        yield found


def _open_stores(found: Contents, opened: ExitStack) -> None:
    files = found.files
    with found.noting():
        if files.features.is_file():
            found.features = opened.enter_context(FeatureStore(files.features))
    with found.noting():
        if files.matches.is_file():
            found.matches = opened.enter_context(MatchStore(files.matches))
    with found.noting():
        if files.database.is_file():
            found.database = opened.enter_context(DatabaseView(files.database))


def _json(found: Contents, path: Path) -> Values:
    with found.noting():
        if path.is_file():
            content = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(content, dict):
                raise ValueError(f"{path} is not the JSON object that lgbatch writes")
            return content
    return {}
