"""Base class of the stores features.h5 and matches.h5.

An item is an HDF5 group of plain datasets. Its attribute `lgbatch`, the record, holds uint64 values; the first is the
fingerprint of the item's provenance (see provenance.py), the last its number of points: keypoints or matches. The root
attribute `lgbatch`, the provenance table, maps fingerprints to provenances, as JSON:

    {"kind": "features" | "matches",
     "made": {fingerprint, 16 hex digits: {"by": provenance, "items": number of items, "points": their points}},
     "unused": unused bytes of the file, which packing frees,
     "twins": names of the twins of matches.h5 (see matches.py), if it has any,
     "shards": paths of the stores that have the items, if the file only links to them (see joining/)}

It is committed together with the items. Files of other programs have no such attributes, and can be read only.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
from h5py import h5g

from lgbatch.errors import StoreError
from lgbatch.storage import hdf5
from lgbatch.storage.hdf5 import DAMAGE, Array, short_reason
from lgbatch.storage.item_templates import ItemTemplates
from lgbatch.storage.joining.shard_files import ShardFiles, damaged_shard
from lgbatch.storage.journal import JournaledFile
from lgbatch.storage.opening import create, open_to_read
from lgbatch.storage.provenance import Provenance, fingerprint

_WAY_OUT = "move it away, and run the stage that writes it again"


class Store:
    """An HDF5 file of items. Open for reading or, with `append`, for adding items, which `commit` makes durable."""

    kind = ""
    """Kind of the items: "features" or "matches"."""
    header_reserve = 0
    """Number of words reserved in an item's HDF5 header: the default header is too small for its links and record."""
    record_words = 0
    """Length of an item's record."""
    use_templates = False
    """Write items compressed, by copying templates: for many small items."""
    _accepted: frozenset[str] = frozenset()
    _fingerprint: int
    _unused_at_open: int

    def __init__(self, path: Path, *, append: Provenance | None = None) -> None:
        """Open a store; with `append`, create it if it is missing, and give new items this provenance.

        Raises StoreError if the file is missing, damaged or in use; with `append` also if its items are of another
        kind or not lgbatch's.
        """
        self.path = path
        self._journaled: JournaledFile | None = None
        self._templates: ItemTemplates | None = None
        self.shards: ShardFiles | None = None  # if the file only links to them
        self._changed = False
        self._table: dict[str, Any] = {}
        try:
            self._file = open_to_read(path) if append is None else self._open_to_append()
        except BlockingIOError:
            self._close_journaled()
            raise StoreError(f"{path} is in use by another program: wait for it, or use another workspace") from None
        except OSError as error:
            self._close_journaled()
            raise StoreError(f"cannot open {path}: {short_reason(error)}; {_WAY_OUT}") from None
        try:
            with self.damage_as_store_error():
                self._root = h5g.open(self._file.id, b"/")
                self._table = hdf5.read_table(self._file) or {"made": {}}
            self.shards = ShardFiles(path, self._table["shards"]) if "shards" in self._table else None
            if append is not None:
                self._set_provenance(append)
        except BaseException:
            self.close()
            raise

    @property
    def provenances(self) -> Mapping[int, dict[str, Any]]:
        """Entries of the provenance table that have items, by fingerprint, with keys "by", "items" and "points"."""
        return {int(key, 16): entry for key, entry in self._table["made"].items() if entry["items"]}

    @property
    def stored_kind(self) -> str | None:
        """Kind of the items according to the file; None for a file of another program."""
        kind: str | None = self._table.get("kind")
        return kind

    @property
    def unused_bytes(self) -> int | None:
        """Unused bytes of the file; None for a file of another program."""
        unused: int | None = self._table.get("unused")
        return unused

    @property
    def current_fingerprint(self) -> int:
        """Fingerprint of new items."""
        return self._fingerprint

    @property
    def provenance(self) -> Provenance:
        """Provenance of new items."""
        provenance: Provenance = self._table["made"][f"{self._fingerprint:016x}"]["by"]
        return provenance

    @property
    def outdated(self) -> dict[int, dict[str, Any]]:
        """The `provenances` that differ from that of new items, in other values than `accept_differences` named."""
        current = self._compared(self.provenance)
        return {key: entry for key, entry in self.provenances.items() if self._compared(entry["by"]) != current}

    @property
    def points(self) -> int:
        """Number of keypoints or matches of all items with a known provenance."""
        return sum(entry["points"] for entry in self.provenances.values())

    def accept_differences(self, *names: str) -> None:
        """Do not regard items as outdated whose provenance differs from that of new items in these values only."""
        self._accepted = frozenset(names)

    def commit(self) -> None:
        """Make all changes so far durable. Raises StoreError; the file is then as at the last commit."""
        with self._writing(str(self.path)) as journaled:
            if self._changed:
                entries = {key: entry for key, entry in self._table["made"].items() if entry["items"]}
                self._table["unused"] = self._unused_at_open + int(self._file.id.get_freespace())
                hdf5.write_table(self._root, self._table | {"made": entries})
                self._changed = False
            self._file.flush()
            journaled.commit()

    def close(self) -> None:
        """Close the file. Changes since the last commit are lost."""
        self._close_groups()
        for opened in self.shards, self._templates:
            if opened is not None:
                opened.close()
        self._file.close()
        self._close_journaled()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Commit and close. After an exception in the block, close without a commit."""
        try:
            if self._journaled is not None and kind is None:
                self.commit()
        finally:
            self.close()

    def _compared(self, provenance: Provenance) -> Provenance:
        return {name: value for name, value in provenance.items() if name not in self._accepted}

    def _open_to_append(self) -> h5py.File:
        if not self.path.exists():
            create(self.path, {"kind": self.kind, "made": {}, "unused": 0})
        self._journaled = JournaledFile(self.path)
        file = h5py.File(self._journaled, "r+", libver=hdf5.LIBVER)
        hdf5.limit_cache(file)
        return file

    def _close_groups(self) -> None:
        """Close the groups that a subclass keeps open."""

    def _close_journaled(self) -> None:
        if self._journaled is not None:
            self._journaled.close()

    def _set_provenance(self, provenance: Provenance) -> None:
        """Set the provenance of new items. Raises StoreError if the file cannot take them."""
        if self.stored_kind is None:
            raise StoreError(f"{self.path} was not made by lgbatch: use another --workspace, or move it away")
        if self.stored_kind != self.kind:
            raise StoreError(
                f"{self.path} holds {self.stored_kind}, not {self.kind}: use another --workspace, or move it away"
            )
        if self.shards is not None:
            self.shards.refuse_change()
        self._register(provenance)
        self._unused_at_open = self._table["unused"]
        self._templates = ItemTemplates() if self.use_templates else None

    def _register(self, provenance: Provenance) -> None:
        self._fingerprint = fingerprint(provenance)
        self._table["made"].setdefault(f"{self._fingerprint:016x}", {"by": provenance, "items": 0, "points": 0})

    @contextmanager
    def changed_provenance(self, **values: Any) -> Iterator[None]:
        """Give the items that the block writes these values in their provenance besides."""
        before = self._fingerprint
        self._register(self.provenance | values)
        try:
            yield
        finally:
            self._fingerprint = before

    @contextmanager
    def damage_as_store_error(self, item: str = "") -> Iterator[None]:
        """Convert exceptions of the block to a StoreError: the file, and in it the `item`, is damaged."""
        try:
            yield
        except DAMAGE as error:
            reason = f"{item}: " * bool(item) + short_reason(error)
            if self.shards:
                raise damaged_shard(self.shards.followed, reason) from None
            repairable = self.stored_kind is not None
            way_out = f"`lgbatch repair {self.path}` keeps what can be read" if repairable else _WAY_OUT
            raise StoreError(f"{self.path} is damaged ({reason}): {way_out}") from None

    def _write(
        self, item: str, parent: h5g.GroupID, name: bytes, arrays: Mapping[bytes, Array], record: Sequence[int]
    ) -> None:
        """Add an item. Its record starts with the fingerprint and ends with the number of points."""
        with self._writing(f"{item} to {self.path}"):
            if self._templates:
                self._templates.write_item(parent, name, arrays, record)
            else:
                hdf5.write_item(parent, name, arrays, record, self.header_reserve)
        self._update_totals(record[0], 1, record[-1])

    def _set_bytes(self, item: str, node: h5g.GroupID, name: bytes, data: bytes) -> None:
        """Add an attribute to an item, or replace it."""
        with self._writing(f"{item} to {self.path}"):
            hdf5.write_bytes(node, name, data)
        self._changed = True

    def _unlink(self, item: str, parent: h5g.GroupID, name: bytes) -> None:
        """Remove an item."""
        record = self._record(parent, name)
        with self._writing(f"{item} to {self.path}"):
            parent.unlink(name)
        if record:
            self._update_totals(record[0], -1, -record[-1])

    @contextmanager
    def _writing(self, subject: str) -> Iterator[JournaledFile]:
        """Convert exceptions of the block, and write errors before, to a StoreError."""
        assert self._journaled is not None, "opened for reading"
        try:
            yield self._journaled
            if self._journaled.write_error:
                raise self._journaled.write_error
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            cause = self._journaled.write_error or error  # errors of HDF5 after a write error are its consequences
            raise StoreError(f"cannot write {subject}: {short_reason(cause)}; finished items are kept") from None

    def _update_totals(self, item_fingerprint: int, items: int, points: int) -> None:
        if entry := self._table["made"].get(f"{item_fingerprint:016x}"):
            entry["items"] += items
            entry["points"] += points
        self._changed = True

    def _record(self, parent: h5g.GroupID, name: bytes) -> list[int] | None:
        """Read the record of an existing item; None if it has none."""
        with self.damage_as_store_error(name.decode(errors="replace")):
            return hdf5.read_record(*self._place(parent, name), self.record_words)

    def _place(self, parent: h5g.GroupID, name: bytes) -> tuple[h5g.GroupID, bytes]:
        """Return the group and the name in it where an item, or a group of pairs, is: in a shard, if it is a link."""
        return (parent, name) if self.shards is None else self.shards.follow(parent, name)

    def _set_record(self, parent: h5g.GroupID, name: bytes, record: Sequence[int]) -> None:
        hdf5.change_record(parent, name, record)
        self._changed = True
