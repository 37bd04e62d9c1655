"""Photos to pixels: 8-bit RGB, turned as COLMAP sees them, at the size the extractor wants."""

import struct

import numpy as np

from lgbatch.errors import ItemError
from lgbatch.photos.image_header import check_size

_TIFF_VALUES = {1: "u1", 3: "u2", 4: "u4", 16: "u8"}
_BITS, _ORIENTATION, _SAMPLE_FORMAT = 258, 274, 339
_SIZES = ((256, 257), (322, 323))
"""Tags of width and height, and of those of a tile."""
_BLOCKS = ((273, 279), (324, 325))
"""Tags of the offsets and byte counts of the strips, and of the tiles."""
_TIFF_TAGS = {_BITS, _ORIENTATION, _SAMPLE_FORMAT, *_SIZES[0], *_SIZES[1], *_BLOCKS[0], *_BLOCKS[1]}


def check_tiff(data: bytes, max_megapixels: float) -> bytes | bytearray:
    """The TIFF without its orientation, which OpenCV would apply whatever its flags say."""
    try:
        tags = _tiff_tags(data)
    except (struct.error, ValueError, OverflowError):
        raise ItemError("truncated or damaged: the TIFF directory lies outside the file") from None
    for sides in _SIZES:
        width, height = (max(tags[side][1], default=0) if side in tags else None for side in sides)
        if width is not None and height is not None:
            check_size((width, height), max_megapixels)
    for offsets, counts in _BLOCKS:
        if offsets in tags and counts in tags:
            ends = [at + n for at, n in zip(tags[offsets][1], tags[counts][1], strict=False)]
            if max(ends, default=0) > len(data):
                raise ItemError("truncated: the TIFF's pixels lie beyond the end of the file")
    bits = tags[_BITS][1] if _BITS in tags else [1]
    kinds = tags[_SAMPLE_FORMAT][1] if _SAMPLE_FORMAT in tags else [1]
    if not {1, 2, 4, 8, 16}.issuperset(bits) or not {1, 4}.issuperset(kinds):
        raise ItemError(
            "unusual TIFF pixels: save it with 8 or 16 bits, unsigned"
        )  # Not float, which has no fixed white.
    if _ORIENTATION not in tags or tags[_ORIENTATION][1] == [1]:
        return data
    at, dtype = tags[_ORIENTATION][0], tags[_ORIENTATION][2]
    upright = bytearray(data)
    upright[at : at + dtype.itemsize] = np.ones(1, dtype).tobytes()
    return upright


def _tiff_tags(data: bytes) -> dict[int, tuple[int, list[int], "np.dtype[np.unsignedinteger]"]]:
    """The tags that matter here, of the first page: where their values are, the values, and their type.

    Layout: TIFF 6.0, and BigTIFF. Raises struct.error, ValueError or OverflowError where it leads outside
    the file.
    """
    order = "<" if data[:1] == b"I" else ">"
    big = 43 in data[2:4]
    word, room, first = ("Q", 8, 8) if big else ("I", 4, 4)
    (at,) = struct.unpack_from(order + word, data, first)
    (entries,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
    at += 8 if big else 2
    tags = {}
    for _ in range(entries):
        tag, kind, count = struct.unpack_from(order + "HH" + word, data, at)
        where = at + 4 + room
        at = where + room
        if tag not in _TIFF_TAGS or kind not in _TIFF_VALUES:
            continue
        dtype = np.dtype(order + _TIFF_VALUES[kind])
        if count * dtype.itemsize > room:
            (where,) = struct.unpack_from(order + word, data, where)
        tags[tag] = (where, np.frombuffer(data, dtype, count, where).tolist(), dtype)
    return tags
