"""The ledger of failures: errors.jsonl in the workspace, one JSON object per line.

Later runs skip the items that are listed there. An item is tried again when its inputs have changed. If it failed
because the memory was short at that moment, it is tried again in each run.

A line is appended when an item fails. A line that a killed process left torn is skipped. When a stage has finished,
the file is rewritten with the items that still fail.
"""

import json
import time
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lgbatch.errors import LgbatchError, WorkspaceError
from lgbatch.storage.durable import replace_synced
from lgbatch.types import Failure, counted


@dataclass(frozen=True)
class Entry:
    """A line of the ledger."""

    stage: str
    name: str
    reason: str
    traceback: str
    time: str
    """ISO 8601, with the offset from UTC."""
    signature: Any
    """Inputs of the failed item as JSON values, such as size and modification time of a photo. None if it has none or
    if the failure was temporary: such an item is always tried again."""

    def failure(self) -> Failure:
        """Return the entry as a Failure."""
        return Failure(self.stage, self.name, self.reason, self.traceback)


class Ledger:
    """The failures of a workspace, by stage and name."""

    def __init__(self, folder: Path, *, retry: bool = False, limit: int = 0) -> None:
        """Read the ledger of the workspace `folder`.

        If `retry` is set, no failure is known. `limit` is the number of new failures to accept, 0 for any number.

        Raises WorkspaceError if the file exists and cannot be read.
        """
        self.path = folder / "errors.jsonl"
        self._retry, self._limit, self._new = retry, limit, 0
        self._entries: dict[tuple[str, str], Entry] = {}
        try:
            raw = self.path.read_bytes() if self.path.exists() else b""
        except OSError as error:
            raise WorkspaceError(f"cannot read {self.path}: {error.strerror}") from None
        for entry in filter(None, map(_parse, raw.split(b"\n"))):
            self._entries[entry.stage, entry.name] = entry
        self._torn = not raw.endswith(b"\n") and bool(raw)

    def entries(self) -> list[Entry]:
        """Return all entries, oldest first."""
        return list(self._entries.values())

    def known(self, stage: str, name: str, signature: Any) -> Failure | None:
        """Return the failure of an item whose inputs are unchanged, or None if the item is to be tried."""
        entry = self._entries.get((stage, name))
        if self._retry or entry is None or entry.signature != signature:
            return None
        return entry.failure()

    def failed_items(self, stages: Collection[str]) -> set[str]:
        """Return the names of the items that failed in these stages."""
        return {entry.name for entry in self._entries.values() if entry.stage in stages}

    def holds_all(self, failures: Collection[Failure]) -> bool:
        """Whether all these failures are in the ledger and none is to be retried."""
        recorded = all((failure.stage, failure.name) in self._entries for failure in failures)
        return recorded and not (failures and self._retry) and not any(failure.temporary for failure in failures)

    def add(self, failure: Failure, signature: Any = None) -> None:
        """Record a failure and count it as new, unless it is known with the same reason and inputs.

        A temporary failure is recorded without its inputs, so that the item is tried again.

        Raises WorkspaceError if the file cannot be written.
        """
        key = failure.stage, failure.name
        signature = None if failure.temporary else signature
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
    def limit_exceeded(self) -> bool:
        """Whether there are more new failures than the limit allows."""
        return 0 < self._limit < self._new

    def check_limit(self) -> None:
        """Raise LgbatchError if there are more new failures than the limit allows."""
        if self.limit_exceeded:
            raise LgbatchError(
                f"stopped after {counted(self._new, 'new failure')} (--max-errors {self._limit}); "
                f"finished items are kept; `lgbatch errors -w {self.path.parent}` lists the failures"
            )

    def finish(self, stages: Collection[str], failures: Iterable[Failure]) -> None:
        """Remove the entries of finished `stages`, except those of `failures`, which still fail.

        Raises WorkspaceError if the file cannot be written.
        """
        failing = {(failure.stage, failure.name) for failure in failures}
        remaining = {key: entry for key, entry in self._entries.items() if key[0] not in stages or key in failing}
        try:
            if remaining:
                replace_synced(self.path, b"".join(map(_line, remaining.values())))
            else:
                self.path.unlink(missing_ok=True)
        except OSError as error:
            raise WorkspaceError(f"cannot write {self.path}: {error.strerror}") from None
        self._entries, self._torn = remaining, False


def _line(entry: Entry) -> bytes:
    return json.dumps(asdict(entry)).encode() + b"\n"  # ASCII with escapes, so that names in any encoding survive


def _parse(line: bytes) -> Entry | None:
    """Return the entry of a line, or None if the line is torn or not an entry."""
    try:
        entry = Entry(**json.loads(line))
    except (ValueError, TypeError):
        return None
    texts = (entry.stage, entry.name, entry.reason, entry.traceback, entry.time)
    return entry if all(isinstance(text, str) for text in texts) else None
