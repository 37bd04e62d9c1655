"""The store that shards are joined into."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from h5py import h5g, h5o

from lgbatch.errors import StoreError
from lgbatch.storage.features import IMAGE_FOLDER, FeatureStore, image_names
from lgbatch.storage.hdf5 import DAMAGE, link_names, link_properties, open_group, read_record, short_reason
from lgbatch.storage.joining.shard import RECORD_WORDS, Shard
from lgbatch.storage.joining.shard_files import ShardFiles
from lgbatch.storage.matches import hloc_name
from lgbatch.storage.store import Store

Item = tuple[bytes, bytes]
"""An item's group and its name in it, as in Shard.items."""
_MAX_OPEN_GROUPS = 256


class _Found(NamedTuple):
    """An item that the store has already."""

    parent: h5g.GroupID
    name: bytes
    record: list[int]
    is_swapped: bool
    """Whether it is a pair in the opposite order. The record is in the order that was asked for."""


class JoinedStore(Store):
    """A store, open for adding the items of shards by copying them: a group of pairs at once, where it is new.

    Open it, `separate` the twins, `add` the shards, and commit.
    """

    def __init__(self, path: Path, kind: str) -> None:
        """Open the store, or create it. Raises StoreError as Store."""
        self.kind, self.record_words = kind, RECORD_WORDS[kind]
        self.added = self.replaced = 0
        self._groups: dict[bytes, h5g.GroupID] = {}
        super().__init__(path, append={})
        try:
            with self.damage_as_store_error():
                is_features = kind == FeatureStore.kind
                names = map(str.encode, image_names(self._root)) if is_features else link_names(self._root)
                self._present = set(names)
        except BaseException:
            self.close()
            raise
        self._shared: set[bytes] = set()

    def commit(self) -> None:
        """Commit as Store, if there are changes."""
        if self._changed:
            super().commit()

    def separate(self, twins: Collection[str]) -> None:
        """Keep the pairs of twins apart, as MatchStore.separate_twins. Raises StoreError if the store does not."""
        stored = set(self._table.get("twins", ()))
        self._shared = {hloc_name(name).encode() for name in (*twins, *stored)}
        if not stored.issuperset(twins):
            for first in self._present:
                self._check_twins(self.path, first, link_names(self._folder(first)))
            self._table["twins"] = sorted(stored.union(twins))
            self._changed = True

    def add(self, shard: Shard, *, skipped: Set[Item] = frozenset(), replaces: bool = False) -> None:
        """Add the items of a shard, except those that are `skipped` or that the store has with the same record.

        Raises StoreError if the store has an item with another record, unless it is to be replaced.
        """
        before, left_out = self.added + self.replaced, list[list[int]]()
        with self._adding(shard):
            self._copy_image_folder(shard)
            for group in shard.groups():
                names = shard.items(group)
                self._check_twins(shard.path, group, names)
                left_out += self._add_group(shard, group, names, skipped, replaces)
        if self.added + self.replaced > before:
            self._add_totals(shard, left_out)

    def _add_group(
        self, shard: Shard, group: bytes, names: list[bytes], skipped: Set[Item], replaces: bool
    ) -> list[list[int]]:
        """Add the items of a group. Returns the records of those that are left out."""
        kept = [(name, self._find(group, name)) for name in names if not skipped or (group, name) not in skipped]
        if group and group not in self._present and len(kept) == len(names) and not any(found for _, found in kept):
            self._put_group(shard, group)
            self._present.add(group)
            self.added += len(names)
            return []
        source = open_group(shard.root, group) if group else shard.root
        left_out = (
            []
            if len(kept) == len(names)
            else [self._shard_record(source, name) for name in names if (group, name) in skipped]
        )
        for name, found in kept:
            if found is None:
                self.added += 1
            else:
                record = self._shard_record(source, name)
                if record == found.record:
                    left_out.append(record)
                    continue
                if not replaces or found.is_swapped:
                    raise self._difference(shard, group, name)
                self._unlink(name.decode(errors="replace"), found.parent, found.name)
                self.replaced += 1
            self._put_item(shard, source, group, name)
        return left_out

    def _difference(self, shard: Shard, group: bytes, name: bytes) -> StoreError:
        item = b" ".join(filter(None, (group, name))).decode(errors="replace")
        other = self.path if self.shards is None else self.shards.followed
        return StoreError(f"{shard.path} has another {item} than {other}: move away what is outdated, and merge again")

    def _find(self, group: bytes, name: bytes) -> _Found | None:
        """Find an item, in either order of a pair."""
        if not group:
            return self._found(self._root, name, False) if name in self._present else None
        for first, second in (group, name), (name, group):
            if first in self._present and (parent := self._folder(first)).links.exists(second):
                return self._found(parent, second, first != group)
        return None

    def _found(self, parent: h5g.GroupID, name: bytes, is_swapped: bool) -> _Found:
        record = self._record(parent, name) or []
        if is_swapped:
            record[1:3] = record[2:0:-1]
        return _Found(parent, name, record, is_swapped)

    def _folder(self, group: bytes) -> h5g.GroupID:
        """Open a group of pairs, or create it."""
        node = self._groups.get(group)
        if node is None:
            if len(self._groups) == _MAX_OPEN_GROUPS:
                self._groups.clear()
            is_new = group not in self._present
            place = (self._root, group) if is_new else self._place(self._root, group)
            node = self._groups[group] = open_group(*place, create=is_new)
            self._present.add(group)
        return node

    def _close_groups(self) -> None:
        self._groups.clear()

    def _put_group(self, shard: Shard, group: bytes) -> None:
        """Add a group of pairs that the store does not have."""
        h5o.copy(shard.root, group, self._root, group)

    def _put_item(self, shard: Shard, source: h5g.GroupID, group: bytes, name: bytes) -> None:
        """Add an item that is in the shard's group `source`."""
        h5o.copy(source, name, self._target(group, name), name, lcpl=link_properties())

    def _target(self, group: bytes, name: bytes) -> h5g.GroupID:
        """Return the group that a new item goes to."""
        if group:
            return self._folder(group)
        self._present.add(name)
        return self._root

    def _shard_record(self, source: h5g.GroupID, name: bytes) -> list[int]:
        record = read_record(source, name, self.record_words)
        if record is None:
            raise ValueError(f"{name.decode(errors='replace')} has no record")
        return record

    def _copy_image_folder(self, shard: Shard) -> None:
        folder = shard.file.attrs.get(IMAGE_FOLDER)
        if folder and IMAGE_FOLDER not in self._file.attrs:
            self._file.attrs[IMAGE_FOLDER] = folder
            self._changed = True

    def _check_twins(self, path: Path, first: bytes, seconds: Iterable[bytes]) -> None:
        if self._shared and (shared := self._shared.intersection((first, *seconds))):
            name = shared.pop().decode(errors="replace")
            raise StoreError(f"{path} has the pairs of different images under one name, {name}: work its unit again")

    def _add_totals(self, shard: Shard, left_out: list[list[int]]) -> None:
        """Add the entries of a shard's provenance table, less the items that were left out."""
        entries: Mapping[str, dict[str, Any]] = shard.table["made"]
        for key, entry in entries.items():
            self._table["made"].setdefault(key, {"by": entry["by"], "items": 0, "points": 0})
            self._update_totals(int(key, 16), entry["items"], entry["points"])
        for record in left_out:
            self._update_totals(record[0], -1, -record[-1])

    @contextmanager
    def _adding(self, shard: Shard) -> Iterator[None]:
        """Convert exceptions of the block to a StoreError: of the store if it cannot be written, else of the shard."""
        assert self._journaled is not None
        try:
            yield
        except DAMAGE as error:
            reason = self._journaled.write_error
            if reason is None:
                raise StoreError(
                    f"{shard.path} is damaged ({short_reason(error)}): move it away, and work its unit again"
                ) from None
            raise StoreError(f"cannot write {self.path}: {short_reason(reason)}; finished items are kept") from None


class LinkedStore(JoinedStore):
    """A new store of links to shards: to a group of pairs if no other shard has pairs in it, else to the items."""

    def __init__(self, path: Path, kind: str, shards: Mapping[Path, str], several: Set[bytes]) -> None:
        """Create the store at `path`, which must not exist, in the folder where it will be.

        `shards` maps the shards to their paths relative to this folder. `several` are the groups of pairs that several
        shards have.
        """
        self._paths, self._several = {shard: name.encode() for shard, name in shards.items()}, several
        super().__init__(path, kind)
        self._table["shards"] = list(shards.values())
        self.shards = ShardFiles(path, self._table["shards"])
        self._changed = True

    def _put_group(self, shard: Shard, group: bytes) -> None:
        if group not in self._several:
            self._root.links.create_external(group, self._paths[shard.path], b"/" + group, link_properties())
            return
        source = open_group(shard.root, group)
        for name in link_names(source):
            self._put_item(shard, source, group, name)

    def _put_item(self, shard: Shard, source: h5g.GroupID, group: bytes, name: bytes) -> None:
        path = b"/" + group + b"/" + name if group else b"/" + name
        target = self._target(group, name)
        target.links.create_external(name, self._paths[shard.path], path, link_properties())
