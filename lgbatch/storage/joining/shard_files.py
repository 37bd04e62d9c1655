"""The shards that a store links to. The links are HDF5's external links, by paths relative to the store's folder.

HDF5 would open and close a shard each time that it follows a link, and follow links to any file. Stores look the links
up instead, and read from shards that stay open.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path

from h5py import h5f, h5g, h5l, h5p

from lgbatch.errors import StoreError
from lgbatch.storage.hdf5 import DAMAGE, short_reason, small_cache

MAX_OPEN_SHARDS = 64
"""Files that a store keeps open: some systems allow a process 256."""
_CACHE_BYTES = 32 << 10
"""Cached metadata of an open shard. In memory they take 20 times as much."""


class ShardFiles:
    """Follows the links of a store to its shards, which it opens for reading when they are needed. Thread-safe."""

    def __init__(self, store: Path, shards: Sequence[str]) -> None:
        """Take the path of the store, and those of its shards, relative to its folder."""
        self._store, self._listed = store, {shard.encode() for shard in shards}
        self._folder = store.resolve().parent
        self._open: OrderedDict[bytes, h5g.GroupID] = OrderedDict()
        self._lock = threading.Lock()
        self._thread = threading.local()

    def __len__(self) -> int:
        """Return the number of shards."""
        return len(self._listed)

    @property
    def followed(self) -> Path:
        """The shard that the last link led to that this thread followed; the store before that."""
        shard: bytes | None = getattr(self._thread, "followed", None)
        return self._store if shard is None else self._path(shard)

    def follow(self, parent: h5g.GroupID, name: bytes) -> tuple[h5g.GroupID, bytes]:
        """Return a group and the name in it of what a link in the store leads to; the arguments if it is no link.

        Raises KeyError if there is no such name, and StoreError if the file is not one of the shards, is missing or
        damaged, or does not have what the link leads to.
        """
        if parent.links.get_info(name).type != h5l.TYPE_EXTERNAL:
            return parent, name
        shard, path = parent.links.get_val(name)
        if shard not in self._listed:
            target = shard.decode(errors="replace")
            raise damaged_shard(self._store, f"a link to {target}, which is not one of its shards")
        self._thread.followed = shard
        root = self._root(shard)
        try:
            if root.links.get_info(path).type == h5l.TYPE_HARD:
                return root, path
        except DAMAGE:
            pass
        raise damaged_shard(self.followed, f"it has no {path.decode(errors='replace')}, to which {self._store} links")

    def links(self, root: h5g.GroupID) -> Iterator[str]:
        """Yield the paths of all links to shards, in the groups below `root`."""
        names: list[bytes] = []

        def collect(name: bytes, info: h5l.LinkInfo) -> None:
            if info.type == h5l.TYPE_EXTERNAL:
                names.append(name)

        root.links.visit(collect, info=True)
        return map(bytes.decode, names)

    def refuse_change(self) -> None:
        """Raise StoreError: a change would have to be made in the shards."""
        raise StoreError(
            f"{self._store} only links to {len(self)} shards, which are never changed: join them into a plain file"
        )

    def close(self) -> None:
        """Close the shards."""
        self._open.clear()

    def _root(self, shard: bytes) -> h5g.GroupID:
        """Return the root group of a shard. The most recently used shards stay open."""
        with self._lock:
            root = self._open.get(shard)
            if root is None:
                root = self._open[shard] = self._open_shard(self._path(shard))
                if len(self._open) > MAX_OPEN_SHARDS:
                    self._open.popitem(last=False)
            self._open.move_to_end(shard)
            return root

    def _path(self, shard: bytes) -> Path:
        return self._folder / shard.decode()

    def _open_shard(self, path: Path) -> h5g.GroupID:
        try:
            if not path.is_file():
                raise StoreError(
                    f"{path} is missing, to which {self._store} links: put it back, or work its unit again"
                )
            file = h5f.open(bytes(path), h5f.ACC_RDONLY, _access())
            return h5g.open(file, b"/")
        except DAMAGE as error:
            raise damaged_shard(path, short_reason(error)) from None


def damaged_shard(path: Path, reason: str) -> StoreError:
    """The error that a shard, or the store that links to it, is damaged."""
    return StoreError(f"{path} is damaged ({reason}): move it away, work its unit again, and merge again")


def _access() -> h5p.PropFAID:
    """Properties of an open shard. It is not locked: nothing changes it. It closes with the last object in use."""
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_fclose_degree(h5f.CLOSE_WEAK)
    access.set_file_locking(False, True)
    access.set_mdc_config(small_cache(access.get_mdc_config(), _CACHE_BYTES))
    return access
