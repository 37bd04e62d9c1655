"""Check a TIFF's directory, and set its orientation to upright.

Layout of the file: TIFF 6.0, and BigTIFF.
"""

import struct
from typing import NamedTuple

import numpy as np

from lgbatch.errors import ItemError
from lgbatch.photos.image_header import check_size

_DTYPES = {1: "u1", 3: "u2", 4: "u4", 16: "u8"}
"""NumPy type by TIFF field type: BYTE, SHORT, LONG, LONG8."""
_BITS, _ORIENTATION, _SAMPLE_FORMAT = 258, 274, 339
_SIZES = ((256, 257), (322, 323))
"""Tags of width and height: of the image, and of a tile."""
_BLOCKS = ((273, 279), (324, 325))
"""Tags of offsets and byte counts: of the strips, and of the tiles."""
_TAGS = {_BITS, _ORIENTATION, _SAMPLE_FORMAT, *_SIZES[0], *_SIZES[1], *_BLOCKS[0], *_BLOCKS[1]}


class _Field(NamedTuple):
    offset: int
    """Of the first value in the file."""
    values: list[int]
    dtype: "np.dtype[np.unsignedinteger]"


_Fields = dict[int, _Field]


def check_tiff(data: bytes, max_megapixels: float) -> bytes | bytearray:
    """Check a TIFF, and return it with an upright orientation: OpenCV applies the tag even if its flags forbid it.

    Raises ItemError if the file is truncated or damaged, too large, or has other than 1, 2, 4, 8 or 16-bit
    unsigned samples.
    """
    try:
        fields = _read_fields(data)
    except (struct.error, ValueError, OverflowError):
        raise ItemError("truncated or damaged: the TIFF directory lies outside the file") from None
    _check_sizes(fields, max_megapixels)
    _check_blocks(fields, len(data))
    _check_samples(fields)
    return _upright(data, fields)


def _check_sizes(fields: _Fields, max_megapixels: float) -> None:
    for width_tag, height_tag in _SIZES:
        if width_tag in fields and height_tag in fields:
            width, height = (max(fields[tag].values, default=0) for tag in (width_tag, height_tag))
            check_size((width, height), max_megapixels)


def _check_blocks(fields: _Fields, file_size: int) -> None:
    for offsets_tag, counts_tag in _BLOCKS:
        if offsets_tag in fields and counts_tag in fields:
            blocks = zip(fields[offsets_tag].values, fields[counts_tag].values, strict=False)
            if max((offset + count for offset, count in blocks), default=0) > file_size:
                raise ItemError("truncated: the TIFF's pixels lie beyond the end of the file")


def _check_samples(fields: _Fields) -> None:
    bits = fields[_BITS].values if _BITS in fields else [1]
    formats = fields[_SAMPLE_FORMAT].values if _SAMPLE_FORMAT in fields else [1]
    # Sample format 1 is unsigned, 4 undefined. Float (3) is rejected: it has no fixed white level.
    if not {1, 2, 4, 8, 16}.issuperset(bits) or not {1, 4}.issuperset(formats):
        raise ItemError("unsupported TIFF pixels: save the photo with 8 or 16 bits, unsigned")


def _upright(data: bytes, fields: _Fields) -> bytes | bytearray:
    if _ORIENTATION not in fields or fields[_ORIENTATION].values == [1]:
        return data
    offset, _, dtype = fields[_ORIENTATION]
    upright = bytearray(data)
    upright[offset : offset + dtype.itemsize] = np.ones(1, dtype).tobytes()
    return upright


def _read_fields(data: bytes) -> _Fields:
    """Read the fields in _TAGS from the first page's directory, by tag.

    Raises struct.error, ValueError or OverflowError if an offset lies outside the file.
    """
    order = "<" if data[:1] == b"I" else ">"
    big = 43 in data[2:4]
    word, word_size, start = ("Q", 8, 8) if big else ("I", 4, 4)
    (directory,) = struct.unpack_from(order + word, data, start)
    (entries,) = struct.unpack_from(order + ("Q" if big else "H"), data, directory)
    entry = directory + (8 if big else 2)
    fields = {}
    for _ in range(entries):
        tag, field_type, count = struct.unpack_from(order + "HH" + word, data, entry)
        offset = entry + 4 + word_size  # values that fit into a word stand in the entry itself
        entry = offset + word_size
        if tag not in _TAGS or field_type not in _DTYPES:
            continue
        dtype = np.dtype(order + _DTYPES[field_type])
        if count * dtype.itemsize > word_size:
            (offset,) = struct.unpack_from(order + word, data, offset)
        fields[tag] = _Field(offset, np.frombuffer(data, dtype, count, offset).tolist(), dtype)
    return fields
