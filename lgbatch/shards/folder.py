"""Paths of the files in OUT/shards/, and their JSON."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lgbatch.errors import InputError, WorkspaceError
from lgbatch.storage.durable import replace_synced
from lgbatch.workspace.folder import Workspace

Json = dict[str, Any]


@dataclass(frozen=True)
class ShardFolder:
    """The folder `shards` of a workspace."""

    workspace: Workspace

    @property
    def root(self) -> Path:
        """The folder itself."""
        return self.workspace.root / "shards"

    @property
    def plan(self) -> Path:
        """What is to be done, with which settings."""
        return self.root / "plan.json"

    @property
    def cameras(self) -> Path:
        """The initial cameras of all images."""
        return self.root / "cameras.json"

    @property
    def merged(self) -> Path:
        """What the last merge has done, if it has written the database."""
        return self.root / "merged.json"

    def step(self, step: str) -> Path:
        """The list of the units of a step."""
        return self.root / f"{step}.json"

    def results(self, step: str) -> Path:
        """The folder of the results of a step."""
        return self.root / step

    def inputs(self, step: str, unit: str) -> Path:
        """What a unit has to do."""
        return self.results(step) / "inputs" / f"{unit}.json"

    def shard(self, step: str, unit: str) -> Path:
        """The store of a unit."""
        return self.results(step) / f"{unit}.h5"

    def marker(self, step: str, unit: str) -> Path:
        """The marker of a unit that is done."""
        return self.results(step) / f"{unit}.json"

    def lease(self, step: str, unit: str) -> Path:
        """The lease of a unit that a worker has claimed."""
        return self.results(step) / f"{unit}.lease"


def write_once(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file that is never changed, durably. The same content again is not written.

    Raises WorkspaceError if it has other content already, or cannot be written.
    """
    data = json.dumps(content).encode() + b"\n"
    try:
        if path.exists():
            if path.read_bytes() != data:
                raise WorkspaceError(f"{path} exists already, with other content: use another folder")
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_synced(path, data)
    except OSError as error:
        raise WorkspaceError(f"cannot write {path}: {error.strerror}") from None


def read_json(path: Path, what: str) -> Json:
    """Read a JSON file. Raises InputError if it is missing or damaged; `what` says what it is."""
    try:
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError
        return content
    except FileNotFoundError:
        raise InputError(f"there is no {what}, {path}: run `lgbatch shard plan`") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {os.strerror(error.errno or 0)}") from None
    except ValueError:
        raise InputError(f"{path} is damaged: restore it, or plan again in another folder") from None
