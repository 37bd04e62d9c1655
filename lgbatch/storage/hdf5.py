"""HDF5 helpers of the stores. An item is a group of plain datasets, with a record in the attribute `lgbatch`.

They use h5py's low-level API: for writing and looking up items, its high-level API takes several times as long.
"""

import errno
import functools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5l, h5o, h5p, h5s, h5t
from numpy.typing import NDArray

Array = NDArray[Any]
ATTRIBUTE = "lgbatch"
"""Attribute of an item's record, and of the file's provenance table."""
# Superblock version 2: groups that stay fast as they grow, and no "open for writing" flag, which would keep readers out
# after a crash. HDF5 1.10 and later read the compressed datasets of item_templates.py.
LIBVER = ("v108", "v110")
_ATTRIBUTE = ATTRIBUTE.encode()
DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError)
"""Exceptions raised when a damaged file is read."""
WORD = h5t.NATIVE_UINT64
# The table is padded to a multiple of this many bytes, so that most commits overwrite it in place.
_TABLE_STEP = 512
CACHE_BYTES = 512 << 10
_MAX_ELEMENTS = 1 << 28  # of one array: two million descriptors of 128 dimensions


def open_file(path: Path, mode: str = "r") -> h5py.File:
    """Open an HDF5 file, as h5py.File. On a file system without locks, it is not locked."""
    libver = None if mode == "r" else LIBVER
    try:
        return h5py.File(path, mode, libver=libver)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
    return h5py.File(path, mode, libver=libver, locking=False)


def limit_cache(file: h5py.File) -> None:
    """Fix the size of HDF5's metadata cache at CACHE_BYTES: by default it grows to 32 MB with the number of items."""
    file.id.set_mdc_config(small_cache(file.id.get_mdc_config()))


def small_cache(config: Any, size: int = CACHE_BYTES) -> Any:
    """Fix the size of a metadata cache's configuration, in bytes of the file, and return it."""
    config.set_initial_size, config.initial_size, config.min_size, config.max_size = True, *[size] * 3
    config.incr_mode, config.flash_incr_mode, config.decr_mode = 0, 0, 0
    return config


def short_reason(error: Exception) -> str:
    """Return an exception's message as one short line."""
    text = getattr(error, "strerror", None) or str(error)
    if "file signature not found" in text:  # HDF5's words
        return "not an HDF5 file"
    return text.strip().splitlines()[0][:200] if text.strip() else type(error).__name__


def write_item(
    parent: h5g.GroupID, name: bytes, arrays: Mapping[bytes, Array], record: Sequence[int], header_reserve: int
) -> None:
    """Create a group with these datasets and a record of uint64. For `header_reserve` see Store.header_reserve."""
    node = open_group(parent, name, create=True)
    if header_reserve:
        _reserve_header(node, header_reserve)
    create_record(node, len(record)).write(np.array(record, dtype=np.uint64), mtype=WORD)
    for key, array in arrays.items():
        write_values(create_dataset(node, key, array), array)


def read_array(node: h5g.GroupID, key: bytes, kinds: str, axes: int) -> Array:
    """Read a dataset in its stored dtype. `kinds` are the accepted NumPy dtype kinds, `axes` the number of dimensions.

    Raises KeyError if there is none, and ValueError for anything else: a link, external storage, another dtype or
    shape, or too many elements, as in a malicious file.
    """
    if is_link(node, key):
        raise ValueError(f"{key.decode()} is a link, not a dataset")
    data = h5o.open(node, key)
    if not isinstance(data, h5d.DatasetID):
        raise ValueError(f"{key.decode()} is not a dataset")
    shape, dtype = data.shape or (), data.dtype
    if dtype.kind not in kinds or len(shape) != axes or data.get_create_plist().get_external_count():
        raise ValueError(f"{key.decode()} is an array of {dtype} and shape {shape}")
    if math.prod(shape) > _MAX_ELEMENTS:
        raise ValueError(f"{key.decode()} has {math.prod(shape)} elements, which is too many")
    values = np.empty(shape, dtype=dtype)
    if values.size:
        data.read(h5s.ALL, h5s.ALL, values, mtype=_type(dtype))
    return values


def is_link(parent: h5g.GroupID, name: bytes) -> bool:
    """Whether a name is a soft or external link. None is followed, except those of ShardFiles."""
    return bool(parent.links.get_info(name).type != h5l.TYPE_HARD)


def is_group(parent: h5g.GroupID, name: bytes) -> bool:
    """Whether an existing name is a group, and not a link to one."""
    return not is_link(parent, name) and bool(h5o.get_info(parent, name).type == h5o.TYPE_GROUP)


def read_record(parent: h5g.GroupID, name: bytes, words: int) -> list[int] | None:
    """Read a group's record of `words` uint64; None if it has none. Raises ValueError or KeyError if it is damaged."""
    if is_link(parent, name):
        raise ValueError("a link, not a group")
    try:
        attribute = h5a.open(parent, _ATTRIBUTE, obj_name=name)
    except KeyError:
        return None
    if attribute.shape != (words,):
        raise ValueError(f"its record has the shape {attribute.shape}")
    values = np.empty(words, dtype=np.uint64)
    attribute.read(values, mtype=WORD)
    record: list[int] = values.tolist()
    return record


def change_record(parent: h5g.GroupID, name: bytes, record: Sequence[int]) -> None:
    """Overwrite a group's record with one of the same length."""
    # Opened through its group: HDF5 2.0 never writes changes made through H5Aopen_by_name.
    h5a.open(h5g.open(parent, name), _ATTRIBUTE).write(np.array(record, dtype=np.uint64), mtype=WORD)


def read_table(file: h5py.File) -> dict[str, Any] | None:
    """Read the table that write_table wrote; None if there is none.

    Raises ValueError, TypeError or KeyError if it is damaged.
    """
    text = file.attrs.get(ATTRIBUTE)
    if text is None:
        return None
    table: dict[str, Any] = json.loads(text)
    valid = isinstance(table["made"], dict) and isinstance(table["kind"], str) and isinstance(table["unused"], int)
    valid = valid and all(isinstance(name, str) for key in ("twins", "shards") for name in table.get(key, []))
    for key, entry in table["made"].items() if valid else ():
        counts = entry["items"], entry["points"]
        valid = valid and int(key, 16) >= 0 and isinstance(entry["by"], dict) and {*map(type, counts)} == {int}
    if not valid:
        raise ValueError("its attribute lgbatch is invalid")
    return table


def write_table(root: h5g.GroupID, table: Mapping[str, Any]) -> None:
    """Write the file's provenance table (see store.py), as JSON in the root attribute."""
    text = json.dumps(table).encode()
    length = -(-len(text) // _TABLE_STEP) * _TABLE_STEP
    string_type = h5t.C_S1.copy()
    string_type.set_size(length)
    string_type.set_strpad(h5t.STR_SPACEPAD)
    string_type.set_cset(h5t.CSET_UTF8)
    if h5a.exists(root, _ATTRIBUTE):
        attribute = h5a.open(root, _ATTRIBUTE)
        if attribute.get_type().get_size() != length:
            h5a.delete(root, _ATTRIBUTE)
            attribute = h5a.create(root, _ATTRIBUTE, string_type, h5s.create(h5s.SCALAR))
    else:
        attribute = h5a.create(root, _ATTRIBUTE, string_type, h5s.create(h5s.SCALAR))
    attribute.write(np.array(text.ljust(length), dtype=f"S{length}"), mtype=string_type)


def link_names(group: h5g.GroupID) -> list[bytes]:
    """Return all names in a group."""
    names: list[bytes] = []
    group.links.iterate(names.append)
    return names


def hard_link_names(group: h5g.GroupID) -> list[bytes]:
    """Return the names in a group, without soft and external links."""
    names: list[bytes] = []

    def collect(name: bytes, info: h5l.LinkInfo) -> None:
        if info.type == h5l.TYPE_HARD:
            names.append(name)

    group.links.iterate(collect, info=True)
    return names


def open_group(parent: h5g.GroupID, name: bytes, *, create: bool = False) -> h5g.GroupID:
    """Open a group, or create it with its parents.

    Raises KeyError if the group to open is missing, and ValueError if it is a link or the group to create exists.
    """
    if create:
        return h5g.create(parent, name, lcpl=link_properties(), gcpl=_group_properties())
    if is_link(parent, name):
        raise ValueError("a link, not a group")
    return h5g.open(parent, name)


def write_number(node: h5d.DatasetID, name: bytes, value: float) -> None:
    """Add an attribute to a dataset."""
    h5a.create(node, name, h5t.IEEE_F64LE, h5s.create(h5s.SCALAR)).write(np.array(value))


def read_bytes(node: h5g.GroupID, name: bytes) -> bytes | None:
    """Read an attribute that `write_bytes` wrote; None if there is none. Raises ValueError if it is something else."""
    if not h5a.exists(node, name):
        return None
    attribute = h5a.open(node, name)
    if attribute.dtype != np.uint8 or len(attribute.shape or ()) != 1:
        raise ValueError(f"{name.decode()} is an array of {attribute.dtype} and shape {attribute.shape}")
    values = np.empty(attribute.shape, dtype=np.uint8)
    if values.size:
        attribute.read(values)
    return values.tobytes()


def write_bytes(node: h5g.GroupID, name: bytes, data: bytes) -> None:
    """Add an attribute of bytes to a group, or replace it."""
    if h5a.exists(node, name):
        h5a.delete(node, name)
    attribute = h5a.create(node, name, h5t.NATIVE_UINT8, h5s.create_simple((len(data),)))
    if data:
        attribute.write(np.frombuffer(data, dtype=np.uint8))


def create_record(node: h5g.GroupID, words: int) -> h5a.AttrID:
    """Create the record of a group, without values."""
    return h5a.create(node, _ATTRIBUTE, WORD, _space((words,)))


def create_dataset(node: h5g.GroupID, key: bytes, array: Array, *, compressed: bool = False) -> h5d.DatasetID:
    """Create a dataset for an array, without values. If `compressed`, it is one chunk."""
    properties = _dataset_properties(array.shape if compressed and array.size else ())
    return h5d.create(node, key, _type(array.dtype), _space(array.shape), dcpl=properties)  # ASCII key


def write_values(data: h5d.DatasetID, array: Array) -> None:
    """Write an array to its dataset."""
    if array.size:
        data.write(h5s.ALL, h5s.ALL, np.ascontiguousarray(array), mtype=_type(array.dtype))


def _reserve_header(node: h5g.GroupID, words: int) -> None:
    """Enlarge a group's header, so that its links and record are stored, and read, as one block."""
    h5a.create(node, b"room", WORD, _space((words,)))
    h5a.delete(node, b"room")


@functools.cache
def link_properties() -> h5p.PropLCID:
    """Return the properties of new links: UTF-8 names; missing parent groups are created."""
    plist = h5p.create(h5p.LINK_CREATE)
    plist.set_char_encoding(h5t.CSET_UTF8)
    plist.set_create_intermediate_group(True)
    return plist


@functools.cache
def _group_properties() -> h5p.PropGCID:
    plist = h5p.create(h5p.GROUP_CREATE)
    plist.set_obj_track_times(False)
    return plist


@functools.lru_cache(maxsize=256)
def _dataset_properties(chunk: tuple[int, ...]) -> h5p.PropDCID:
    plist = h5p.create(h5p.DATASET_CREATE)
    if chunk:
        plist.set_chunk(chunk)
        plist.set_deflate()
    plist.set_fill_time(h5d.FILL_TIME_NEVER)
    plist.set_obj_track_times(False)
    return plist


@functools.lru_cache(maxsize=1024)
def _space(shape: tuple[int, ...]) -> h5s.SpaceID:
    return h5s.create_simple(shape)


@functools.cache
def _type(dtype: Any) -> h5t.TypeID:
    return h5t.py_create(dtype)
