"""A file of items, crash-safe: what features.h5 and matches.h5 have in common.

An item is a group of plain datasets. Its attribute `lgbatch`, a few uint64, says what made it (see store.py). The
root attribute `lgbatch` tells as JSON what that stands for, and how much there is of each:

    {"kind": "features" | "matches",
     "made": {fingerprint, 16 hex digits: {"by": {settings and models}, "items": how many, "points": how many
              keypoints, or matches, these items have}},
     "unused": bytes of the file that nothing uses any more}

It is committed with the items. Files written by others have no attributes, and are read all the same.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
from h5py import h5g

from lgbatch.errors import StoreError
from lgbatch.storage import hdf5
from lgbatch.storage.durable import write_synced
from lgbatch.storage.hdf5 import Array
from lgbatch.storage.item_templates import ItemTemplates
from lgbatch.storage.journal import JournaledFile, journal_path, recover
from lgbatch.storage.provenance import Provenance, fingerprint

DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError)
"""What reading a damaged file raises."""


class Store:
    """An HDF5 file, opened for reading or, with `append`, for adding items that become lasting at `commit`."""

    kind = ""
    """What the items are."""
    header_reserve = 0
    """Words to set aside in an item's header, for the names and the record that do not fit into it as HDF5 makes it."""
    words = 0
    """Of an item's record."""
    small = False
    """Whether there are many items that take little room each, as HDF5's molds are for."""
    _now: int
    _unused_before: int

    def __init__(self, path: Path, *, append: Provenance | None = None) -> None:
        """Open; `append` says what will make new items. Raises StoreError: not there, damaged, not lgbatch's."""
        self.path = path
        self._journaled: JournaledFile | None = None
        self._templates: ItemTemplates | None = None
        self._changed = False
        try:
            if append is None:
                self._file = open_to_read(path)
            else:
                if not path.exists():
                    _create(path, {"kind": self.kind, "made": {}, "unused": 0})
                self._journaled = JournaledFile(path)
                self._file = h5py.File(self._journaled, "r+", libver=hdf5.FORMAT)
            hdf5.limit_cache(self._file)
        except BlockingIOError:
            self._drop()
            raise StoreError(f"{path} is in use by another program: wait for it, or use another --workspace") from None
        except OSError as error:
            self._drop()
            raise StoreError(f"cannot open {path}: {reason(error)}; move it away, or use another --workspace") from None
        try:
            with self.undamaged():
                self._root = h5g.open(self._file.id, b"/")
                self._table = hdf5.read_table(self._file) or {"made": {}}
            if append is not None:
                self._make_by(append)
        except BaseException:
            self.close()
            raise

    @property
    def made(self) -> Mapping[int, dict[str, Any]]:
        """By fingerprint: what made items (`by`), `items`, and the keypoints or matches in them (`points`)."""
        return {int(key, 16): entry for key, entry in self._table["made"].items() if entry["items"]}

    @property
    def holds(self) -> str | None:
        """The kind of its items, as the file says; None when it does not."""
        kind: str | None = self._table.get("kind")
        return kind

    @property
    def unused(self) -> int | None:
        """Bytes of the file that nothing uses any more; None when the file does not say."""
        unused: int | None = self._table.get("unused")
        return unused

    @property
    def current(self) -> int:
        """The fingerprint of what is made now."""
        return self._now

    @property
    def by(self) -> Provenance:
        """What makes items now."""
        by: Provenance = self._table["made"][f"{self._now:016x}"]["by"]
        return by

    @property
    def others(self) -> dict[int, dict[str, Any]]:
        """Of `made`, what was made otherwise than items are now."""
        return {made: entry for made, entry in self.made.items() if made != self._now}

    @property
    def points(self) -> int:
        """Keypoints or matches of all items whose maker is known."""
        return sum(entry["points"] for entry in self.made.values())

    def commit(self) -> None:
        """Make what was written so far last. Raises StoreError, and then the file is as at the last commit."""
        assert self._journaled is not None, "opened for reading"
        try:
            if self._changed:
                made = {key: entry for key, entry in self._table["made"].items() if entry["items"]}
                self._table["unused"] = self._unused_before + int(self._file.id.get_freespace())
                hdf5.write_table(self._root, self._table | {"made": made})
                self._changed = False
            self._file.flush()
            self._journaled.commit()
        except (OSError, RuntimeError, ValueError) as error:
            raise StoreError(self._unwritten(str(self.path), error)) from None

    def close(self) -> None:
        """Close; what was written after the last commit is dropped."""
        self._forget()
        if self._templates is not None:
            self._templates.close()
        self._file.close()
        self._drop()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Commit what a finished block wrote; a block that raised keeps what it committed itself."""
        try:
            if self._journaled is not None and kind is None:
                self.commit()
        finally:
            self.close()

    def _forget(self) -> None:
        """Let go of what is open in the file."""

    def _drop(self) -> None:
        if self._journaled is not None:
            self._journaled.close()

    def _make_by(self, provenance: Provenance) -> None:
        if self.holds is None:
            raise StoreError(f"{self.path} was not made by lgbatch: use another --workspace, or move it away")
        if self.holds != self.kind:
            raise StoreError(
                f"{self.path} holds {self.holds}, not {self.kind}: use another --workspace, or move it away"
            )
        self._now = fingerprint(provenance)
        self._table["made"].setdefault(f"{self._now:016x}", {"by": provenance, "items": 0, "points": 0})
        self._unused_before = self._table["unused"]
        self._templates = ItemTemplates() if self.small else None

    @contextmanager
    def undamaged(self, item: str = "") -> Iterator[None]:
        """What goes wrong in the block says that the file is damaged, and in which item, as a StoreError."""
        try:
            yield
        except DAMAGE as error:
            damage = f"{self.path} is damaged ({f'{item}: ' * bool(item)}{reason(error)})"
            raise StoreError(f"{damage}: move it away, and run the step that makes it again") from None

    def _write(
        self, item: str, parent: h5g.GroupID, name: bytes, arrays: Mapping[bytes, Array], record: Sequence[int]
    ) -> None:
        """Add an item, whose record begins with `made` and ends with its points."""
        assert self._journaled is not None, "opened for reading"
        write = self._templates.write_item if self._templates else hdf5.write_item
        try:
            write(parent, name, arrays, record, self.header_reserve)
            if self._journaled.failure:
                raise self._journaled.failure
        except (OSError, ValueError, RuntimeError) as error:
            raise StoreError(self._unwritten(f"{item} to {self.path}", error)) from None
        self._count(record[0], 1, record[-1])

    def _unlink(self, item: str, parent: h5g.GroupID, name: bytes) -> None:
        assert self._journaled is not None, "opened for reading"
        record = self._record(parent, name)
        try:
            parent.unlink(name)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise StoreError(self._unwritten(f"{item} to {self.path}", error)) from None
        if record:
            self._count(record[0], -1, -record[-1])

    def _count(self, made: int, items: int, points: int) -> None:
        entry = self._table["made"].get(f"{made:016x}")
        if entry:
            entry["items"] += items
            entry["points"] += points
        self._changed = True

    def _record(self, parent: h5g.GroupID, name: bytes) -> list[int] | None:
        """The record of an item that is there; None where it has none."""
        with self.undamaged(name.decode(errors="replace")):
            return hdf5.read_record(parent, name, self.words)

    def _set_record(self, parent: h5g.GroupID, name: bytes, record: Sequence[int]) -> None:
        hdf5.change_record(parent, name, record)
        self._changed = True

    def _unwritten(self, what: str, error: Exception) -> str:
        assert self._journaled is not None
        why = reason(self._journaled.failure or error)  # what HDF5 says then is only what follows from it
        return f"cannot write {what}: {why}; what was finished is kept"


def reason(error: Exception) -> str:
    """Why, in one short line."""
    text = getattr(error, "strerror", None) or str(error)
    return text.strip().splitlines()[0][:200] if text.strip() else type(error).__name__


def open_to_read(path: Path) -> h5py.File:
    """Open an HDF5 file, after the commit that a killed process had begun was finished. Raises OSError, StoreError."""
    if not path.is_file():
        raise StoreError(f"no {path.name} in {path.parent}: run the step before this one, or choose its --workspace")
    if journal_path(path).exists():
        recover(path)
    file = h5py.File(path, "r")
    hdf5.limit_cache(file)
    return file


def _create(path: Path, table: Mapping[str, Any]) -> None:
    journal_path(path).unlink(missing_ok=True)  # of a file that was deleted: it must never meet this one
    image = io.BytesIO()
    with h5py.File(image, "w", libver=hdf5.FORMAT) as file:
        hdf5.write_table(h5g.open(file.id, b"/"), table)
    partial = path.with_name(f".{path.name}.new")
    write_synced(partial, image.getvalue())
    partial.replace(path)
