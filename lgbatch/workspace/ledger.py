"""The failures of a workspace: errors.jsonl, a JSON object a line, so that no later run tries in vain what failed.

Lines are appended as items fail; a line that a killed process left torn is skipped. When a stage is over, the file
is written anew with what still fails. An item is tried again when what it is made from has changed.
"""

import json
import time
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lgbatch.errors import LgbatchError, WorkspaceError
from lgbatch.storage.durable import write_synced
from lgbatch.types import Failure


@dataclass(frozen=True)
class Entry:
    """A failure that is kept."""

    stage: str
    name: str
    reason: str
    traceback: str
    time: str
    """ISO 8601, with the offset from UTC."""
    signature: Any
    """What it was tried with, such as the size and time of change of the photo; None: nothing was tried."""

    def failure(self) -> Failure:
        """As a stage tells it."""
        return Failure(self.stage, self.name, self.reason, self.traceback)


class Ledger:
    """The failures of a workspace, by stage and name."""

    def __init__(self, folder: Path, *, retry: bool = False, limit: int = 0) -> None:
        """Of the workspace `folder`; with `retry` nothing counts as tried. `limit` 0 is none.

        Raises WorkspaceError when the file is there and cannot be read.
        """
        self.path = folder / "errors.jsonl"
        self._retry, self._limit, self._new = retry, limit, 0
        self._entries: dict[tuple[str, str], Entry] = {}
        try:
            raw = self.path.read_bytes() if self.path.exists() else b""
        except OSError as error:
            raise WorkspaceError(f"cannot read {self.path}: {error.strerror}") from None
        for entry in filter(None, map(_entry, raw.split(b"\n"))):
            self._entries[entry.stage, entry.name] = entry
        self._torn = not raw.endswith(b"\n") and bool(raw)

    def entries(self) -> list[Entry]:
        """All of them, in the order in which they came."""
        return list(self._entries.values())

    def known(self, stage: str, name: str, signature: Any) -> Failure | None:
        """How an item failed that there is no use in trying again; None: try it."""
        entry = self._entries.get((stage, name))
        if self._retry or entry is None or entry.signature != signature:
            return None
        return entry.failure()

    def failed(self, stages: Collection[str]) -> dict[str, Failure]:
        """The failures of these stages by the item's name."""
        return {entry.name: entry.failure() for entry in self._entries.values() if entry.stage in stages}

    def settled(self, failures: Collection[Failure]) -> bool:
        """Whether there is no use in trying any of these again."""
        known = all((failure.stage, failure.name) in self._entries for failure in failures)
        return known and not (failures and self._retry)

    def add(self, failure: Failure, signature: Any = None) -> None:
        """Keep a failure. Raises WorkspaceError when the file cannot be written."""
        key = failure.stage, failure.name
        old = self._entries.get(key)
        if old and not self._retry and (old.reason, old.signature) == (failure.reason, signature):
            return
        self._new += 1
        now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        entry = Entry(failure.stage, failure.name, failure.reason, failure.traceback, now, signature)
        self._entries[key] = entry
        try:
            with self.path.open("ab") as file:
                file.write(b"\n" * self._torn + _line(entry))
        except OSError as error:
            raise WorkspaceError(f"cannot write {self.path}: {error.strerror}") from None
        self._torn = False

    @property
    def full(self) -> bool:
        """Whether more items have failed in this stage than the limit allows."""
        return 0 < self._limit < self._new

    def check(self) -> None:
        """Raise LgbatchError when it is full."""
        if self.full:
            raise LgbatchError(
                f"stopped after {self._new} new failures (--max-errors {self._limit}); what is finished is kept, and "
                f"`lgbatch errors -w {self.path.parent}` lists them"
            )

    def finish(self, stages: Collection[str], failures: Iterable[Failure]) -> None:
        """These stages are over, and of their items only `failures` still fail. Raises WorkspaceError as `add`."""
        still = {(failure.stage, failure.name) for failure in failures}
        kept = {key: entry for key, entry in self._entries.items() if key[0] not in stages or key in still}
        partial = self.path.with_name(f".{self.path.name}.new")
        try:
            if kept:
                write_synced(partial, b"".join(map(_line, kept.values())))
                partial.replace(self.path)
            else:
                self.path.unlink(missing_ok=True)
        except OSError as error:
            raise WorkspaceError(f"cannot write {self.path}: {error.strerror}") from None
        self._entries, self._torn = kept, False


def _line(entry: Entry) -> bytes:
    return json.dumps(asdict(entry)).encode() + b"\n"  # ASCII: names of any bytes come back as they were


def _entry(line: bytes) -> Entry | None:
    try:
        entry = Entry(**json.loads(line))
    except (ValueError, TypeError):
        return None
    texts = (entry.stage, entry.name, entry.reason, entry.traceback, entry.time)
    return entry if all(isinstance(text, str) for text in texts) else None
