"""An open shard, and its items."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import h5py
from h5py import h5g

from lgbatch.errors import StoreError
from lgbatch.storage.features import FeatureStore, image_names
from lgbatch.storage.hdf5 import DAMAGE, link_names, open_group, read_table, short_reason
from lgbatch.storage.matches import MatchStore
from lgbatch.storage.opening import open_to_read

RECORD_WORDS = {store.kind: store.record_words for store in (FeatureStore, MatchStore)}


class Shard(NamedTuple):
    """A shard, open for reading."""

    path: Path
    file: h5py.File
    table: dict[str, Any]
    """Its provenance table."""
    root: h5g.GroupID

    @property
    def kind(self) -> str:
        """Kind of its items: "features" or "matches"."""
        return str(self.table["kind"])

    def groups(self) -> Iterator[bytes]:
        """Yield the groups that have items: of matches those of the first images, of features b'', the root."""
        yield from sorted(link_names(self.root)) if self.kind == MatchStore.kind else [b""]

    def items(self, group: bytes) -> list[bytes]:
        """Return the names of the items in a group: of pairs their second images, of features the images."""
        if self.kind == MatchStore.kind:
            return link_names(open_group(self.root, group))
        return [name.encode() for name in image_names(self.root)]


@contextmanager
def open_shard(path: Path) -> Iterator[Shard]:
    """Open a shard for reading.

    Raises StoreError, which names the shard, if it is missing, damaged or not a shard, also for errors in the block.
    """
    if not path.is_file():
        raise StoreError(f"{path} is missing: put it back, or work its unit again")
    try:
        with open_to_read(path) as file:
            table = read_table(file)
            if table is None or table["kind"] not in RECORD_WORDS or "shards" in table:
                raise StoreError(f"{path} is not a shard, a features.h5 or matches.h5 that lgbatch has written")
            yield Shard(path, file, table, h5g.open(file.id, b"/"))
    except DAMAGE as error:
        raise StoreError(f"{path} is damaged ({short_reason(error)}): move it away, and work its unit again") from None
