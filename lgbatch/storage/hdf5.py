"""HDF5 as the stores use it: groups of plain datasets, each with a record in the attribute `lgbatch`.

Calls are h5py's low-level ones: where items are written or looked up, the others take several times as long.
"""

import functools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5l, h5o, h5p, h5s, h5t
from numpy.typing import NDArray

Array = NDArray[Any]
MADE_BY = "lgbatch"
# Superblock version 2: new-style groups that stay fast as they grow, and no "open for writing" mark that would
# keep readers out after a crash.
FORMAT = ("v108", "v108")
_RECORD = MADE_BY.encode()
WORD = h5t.NATIVE_UINT64
_ALL = h5s.ALL
_TABLE_STEP = 512  # the table's text grows by so many bytes: most commits find it as long as it was, and in its place
CACHE_BYTES = 512 << 10
_MOST_NUMBERS = 1 << 28  # in one array: two million descriptors


def limit_cache(file: h5py.File) -> None:
    """Keep HDF5's cache of what is not data at CACHE_BYTES: by itself it grows to 32 MB with the items of a file."""
    cache = file.id.get_mdc_config()
    cache.set_initial_size, cache.initial_size, cache.min_size, cache.max_size = True, *[CACHE_BYTES] * 3
    cache.incr_mode, cache.flash_incr_mode, cache.decr_mode = 0, 0, 0
    file.id.set_mdc_config(cache)


def write_item(
    parent: h5g.GroupID, name: bytes, arrays: Mapping[bytes, Array], record: Sequence[int], header_reserve: int
) -> None:
    """Make a group of these arrays with a record of uint64; `room` is as in Store.room."""
    node = open_group(parent, name, make=True)
    if header_reserve:
        _reserve_header(node, header_reserve)
    create_record(node, len(record)).write(np.array(record, dtype=np.uint64), mtype=WORD)
    for key, array in arrays.items():
        write_values(create_dataset(node, key, array, h5d.CONTIGUOUS), array)


def read_array(node: h5g.GroupID, key: bytes, kinds: str, axes: int) -> Array:
    """A dataset of one of these kinds of numbers (NumPy's letters), with so many axes, as it is stored.

    Raises KeyError where there is none and ValueError where it is something else, which may be made to do harm.
    """
    if is_link(node, key):
        raise ValueError(f"{key.decode()} is a link to elsewhere")
    data = h5o.open(node, key)
    if not isinstance(data, h5d.DatasetID):
        raise ValueError(f"{key.decode()} is no dataset")
    shape, kind = data.shape or (), data.dtype
    if kind.kind not in kinds or len(shape) != axes or data.get_create_plist().get_external_count():
        raise ValueError(f"{key.decode()} is an array of {kind} and shape {shape}")
    if math.prod(shape) > _MOST_NUMBERS:
        raise ValueError(f"{key.decode()} has {math.prod(shape)} numbers, which is too many")
    values = np.empty(shape, dtype=kind)
    if values.size:
        data.read(_ALL, _ALL, values)
    return values


def is_link(parent: h5g.GroupID, name: bytes) -> bool:
    """Whether a name leads elsewhere in the file, or out of it. Stores have no such names, and none is followed."""
    return bool(parent.links.get_info(name).type != h5l.TYPE_HARD)


def read_record(parent: h5g.GroupID, name: bytes, words: int) -> list[int] | None:
    """The record of a group, so many words; None where it has none. Raises ValueError, KeyError where it is no item."""
    if is_link(parent, name):
        raise ValueError("a link to elsewhere")
    try:
        record = h5a.open(parent, _RECORD, obj_name=name)
    except KeyError:
        return None
    if record.shape != (words,):
        raise ValueError(f"its record has the shape {record.shape}")
    values = np.empty(words, dtype=np.uint64)
    record.read(values, mtype=WORD)
    found: list[int] = values.tolist()
    return found


def change_record(parent: h5g.GroupID, name: bytes, record: Sequence[int]) -> None:
    """Write another record of the same length over that of a group."""
    # Opened through its group: HDF5 2.0 never writes what is changed through H5Aopen_by_name.
    h5a.open(h5g.open(parent, name), _RECORD).write(np.array(record, dtype=np.uint64), mtype=WORD)


def read_table(file: h5py.File) -> dict[str, Any] | None:
    """What write_table wrote; None where there is no such thing. Raises ValueError, TypeError, KeyError."""
    text = file.attrs.get(MADE_BY)
    if text is None:
        return None
    table: dict[str, Any] = json.loads(text)
    sound = isinstance(table["made"], dict) and isinstance(table["kind"], str) and isinstance(table["unused"], int)
    for key, entry in table["made"].items() if sound else ():
        counts = entry["items"], entry["points"]
        sound = sound and int(key, 16) >= 0 and isinstance(entry["by"], dict) and {*map(type, counts)} == {int}
    if not sound:
        raise ValueError("its attribute lgbatch is not what lgbatch writes")
    return table


def write_table(root: h5g.GroupID, table: Mapping[str, Any]) -> None:
    """Set the root attribute that tells what made the items."""
    text = json.dumps(table).encode()
    length = -(-len(text) // _TABLE_STEP) * _TABLE_STEP
    kind = h5t.C_S1.copy()
    kind.set_size(length)
    kind.set_strpad(h5t.STR_SPACEPAD)
    kind.set_cset(h5t.CSET_UTF8)
    if h5a.exists(root, _RECORD):
        attribute = h5a.open(root, _RECORD)
        if attribute.get_type().get_size() != length:
            h5a.delete(root, _RECORD)
            attribute = h5a.create(root, _RECORD, kind, h5s.create(h5s.SCALAR))
    else:
        attribute = h5a.create(root, _RECORD, kind, h5s.create(h5s.SCALAR))
    attribute.write(np.array(text.ljust(length), dtype=f"S{length}"), mtype=kind)


def link_names(group: h5g.GroupID) -> list[bytes]:
    """The names in a group."""
    names: list[bytes] = []
    group.links.iterate(names.append)
    return names


def own_names(group: h5g.GroupID) -> list[bytes]:
    """The names in a group that are no links to elsewhere."""
    names: list[bytes] = []

    def look(name: bytes, info: h5l.LinkInfo) -> None:
        if info.type == h5l.TYPE_HARD:
            names.append(name)

    group.links.iterate(look, info=True)
    return names


def open_group(parent: h5g.GroupID, name: bytes, *, make: bool = False) -> h5g.GroupID:
    """A group in a group, made, with those on the way to it, where it is not there. Raises KeyError, ValueError."""
    if make:
        return h5g.create(parent, name, lcpl=link_properties(), gcpl=_untimed_group())
    if is_link(parent, name):
        raise ValueError("a link to elsewhere")
    return h5g.open(parent, name)


def write_number(node: h5py.h5d.DatasetID, name: bytes, value: float) -> None:
    """Give a dataset an attribute."""
    h5a.create(node, name, h5t.IEEE_F64LE, h5s.create(h5s.SCALAR)).write(np.array(value))


def create_record(node: h5g.GroupID, words: int) -> h5a.AttrID:
    return h5a.create(node, _RECORD, WORD, _space((words,)))


def create_dataset(node: h5g.GroupID, key: bytes, array: Array, layout: int) -> h5d.DatasetID:
    kind, shape = _type(array.dtype), _space(array.shape)
    return h5d.create(node, key, kind, shape, dcpl=_dataset(layout))  # ASCII: no link properties


def write_values(data: h5d.DatasetID, array: Array) -> None:
    if array.size:
        data.write(_ALL, _ALL, np.ascontiguousarray(array), mtype=_type(array.dtype))


def _reserve_header(node: h5g.GroupID, words: int) -> None:
    """Let a group's header have its names and record in one piece: else each gets a piece, and needs a read, alone."""
    h5a.create(node, b"room", WORD, _space((words,)))
    h5a.delete(node, b"room")


@functools.cache
def link_properties() -> h5p.PropLCID:
    plist = h5p.create(h5p.LINK_CREATE)
    plist.set_char_encoding(h5t.CSET_UTF8)
    plist.set_create_intermediate_group(True)
    return plist


@functools.cache
def _untimed_group() -> h5p.PropGCID:
    plist = h5p.create(h5p.GROUP_CREATE)
    plist.set_obj_track_times(False)
    return plist


@functools.cache
def _dataset(layout: int) -> h5p.PropDCID:
    plist = h5p.create(h5p.DATASET_CREATE)
    plist.set_layout(layout)
    plist.set_fill_time(h5d.FILL_TIME_NEVER)
    plist.set_obj_track_times(False)
    return plist


@functools.lru_cache(maxsize=1024)
def _space(shape: tuple[int, ...]) -> h5s.SpaceID:
    return h5s.create_simple(shape)


@functools.cache
def _type(dtype: Any) -> h5t.TypeID:
    return h5t.py_create(dtype)
