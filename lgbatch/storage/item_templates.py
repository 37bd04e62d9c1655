"""HDF5 as the stores use it: groups of plain datasets, each with a record in the attribute `lgbatch`.

Calls are h5py's low-level ones: where items are written or looked up, the others take several times as long.
"""

import io
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5o

from lgbatch.storage.hdf5 import (
    FORMAT,
    WORD,
    Array,
    create_dataset,
    create_record,
    link_properties,
    open_group,
    write_item,
    write_values,
)

_COMPACT_BYTES = 60_000  # HDF5 keeps arrays of less than 64 kB with what it says of them
_MOST_TEMPLATES = 64


class ItemTemplates:
    """Makes small items that are alike, by copying: in a third of the time that `write_item` takes.

    A mold is an item in a file in memory. Its numbers are changed, and HDF5 copies it, which is one call instead of
    nine. Its arrays are compact, so that an item is three writes; and a checksum covers them. There is a mold for each
    length that arrays have; the ones that were used last are kept.
    """

    def __init__(self) -> None:
        self._file = h5py.File(io.BytesIO(), "w", libver=FORMAT)
        self._root = h5g.open(self._file.id, b"/")
        self._kept: OrderedDict[Any, _Template] = OrderedDict()
        self._made = 0

    def write_item(
        self,
        parent: h5g.GroupID,
        name: bytes,
        arrays: Mapping[bytes, Array],
        record: Sequence[int],
        header_reserve: int,
    ) -> None:
        """As the function."""
        if any(array.nbytes > _COMPACT_BYTES for array in arrays.values()):
            write_item(parent, name, arrays, record, header_reserve)
            return
        template = self._template(arrays, len(record))
        template.record.write(np.array(record, dtype=np.uint64), mtype=WORD)
        for data, array in zip(template.arrays, arrays.values(), strict=True):
            write_values(data, array)
        h5o.copy(self._root, template.name, parent, name, lcpl=link_properties())

    def close(self) -> None:
        """Let go of the memory."""
        self._kept.clear()
        self._file.close()

    def _template(self, arrays: Mapping[bytes, Array], words: int) -> "_Template":
        alike = (words, *((key, array.dtype, array.shape) for key, array in arrays.items()))
        template = self._kept.get(alike)
        if template is None:
            if len(self._kept) == _MOST_TEMPLATES:
                _, oldest = self._kept.popitem(last=False)
                self._root.unlink(oldest.name)
            template = self._kept[alike] = self._make(arrays, words)
        self._kept.move_to_end(alike)
        return template

    def _make(self, arrays: Mapping[bytes, Array], words: int) -> "_Template":
        self._made += 1
        name = str(self._made).encode()
        node = open_group(self._root, name, make=True)
        data = [create_dataset(node, key, array, h5d.COMPACT) for key, array in arrays.items()]
        return _Template(name, create_record(node, words), data)


class _Template(NamedTuple):
    name: bytes
    record: h5a.AttrID
    arrays: list[h5d.DatasetID]
