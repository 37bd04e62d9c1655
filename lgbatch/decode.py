"""Photos to pixels: 8-bit RGB, turned as COLMAP sees them, at the size the extractor wants."""

import math
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np

from lgbatch.errors import ItemError
from lgbatch.headers import PNG, claimed_size, jpeg_segments
from lgbatch.types import FloatArray, ImageRef, Photo

# OpenCV logs what it cannot read; a bad photo is told once, by the ItemError.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

_READ_FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION

_TIFF_VALUES = {1: "u1", 3: "u2", 4: "u4", 16: "u8"}
_BITS, _ORIENTATION, _SAMPLE_FORMAT = 258, 274, 339
_SIZES = ((256, 257), (322, 323))
"""Tags of width and height, and of those of a tile."""
_BLOCKS = ((273, 279), (324, 325))
"""Tags of the offsets and byte counts of the strips, and of the tiles."""
_TIFF_TAGS = {_BITS, _ORIENTATION, _SAMPLE_FORMAT, *_SIZES[0], *_SIZES[1], *_BLOCKS[0], *_BLOCKS[1]}
_BYTES_PER_PIXEL, _BYTES_BESIDE = 16, 64 << 20
"""More than a file takes for each pixel, and for all else in it: EXIF, previews, a phone's moving picture."""


def decode(ref: ImageRef, resize: int, max_megapixels: float = math.inf) -> Photo:
    """Reads a photo. Its long side is shrunk to `resize` pixels by area averaging; 0 keeps it, none grows.

    The pixels are as the file stores them: EXIF, TIFF and PNG orientation is not applied, because COLMAP
    (checked with pycolmap 4.2.1) does not apply it either. 16-bit photos keep their upper 8 bits, alpha is
    dropped, grey becomes three equal channels. May be called from several threads at once.

    Raises ItemError, with the reason, when the file cannot be read, is truncated or damaged, or is not JPEG,
    PNG, TIFF, WebP, BMP or JPEG 2000 with integer pixels; or when it is of more than `max_megapixels` million
    pixels by its header, before room is made for them.
    """
    data = _checked(_read(ref.path, max_megapixels), max_megapixels)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), _READ_FLAGS)
    except cv2.error as error:
        raise ItemError(f"cannot be decoded: {' '.join(error.err.split())}") from None
    if pixels is None:
        raise ItemError("cannot be decoded: truncated, damaged, or of an unusual kind")
    height, width = pixels.shape[:2]
    size = resized(width, height, resize)
    if size != (width, height):
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    rgb = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)
    return Photo(ref.name, rgb, (width, height))


def resized(width: int, height: int, resize: int) -> tuple[int, int]:
    """(width, height) after the long side was shrunk to `resize`; unchanged when it is 0 or not smaller."""
    long = max(width, height)
    if not 0 < resize < long:
        return width, height
    return max(1, round(width * resize / long)), max(1, round(height * resize / long))


def to_original(keypoints: FloatArray, pixels_shape: tuple[int, ...], size: tuple[int, int]) -> FloatArray:
    """Keypoints of the resized pixels in pixels of the original image.

    `keypoints` is (N, 2), x and y, top-left pixel centre (0, 0), and so is the result, as float32.
    `pixels_shape` is Photo.pixels.shape, (H, W, 3); `size` is Photo.size, (width, height). The map is
    (k + 0.5) * scale - 0.5; each axis has its own scale, original / resized, since sides are whole pixels.
    """
    height, width = pixels_shape[:2]
    scale = np.array([size[0] / width, size[1] / height])
    mapped: FloatArray = ((keypoints + 0.5) * scale - 0.5).astype(np.float32)
    return mapped


def _read(path: Path, max_megapixels: float) -> bytes:
    try:
        size = path.stat().st_size
        if size > _BYTES_PER_PIXEL * 1e6 * max_megapixels + _BYTES_BESIDE:
            raise ItemError(f"the file, of {size / 1e9:.1f} GB, is too large for a photo of {_limit(max_megapixels)}")
        data = path.read_bytes()
    except OSError as error:
        raise ItemError(f"cannot be read: {error.strerror}") from None
    if not data:
        raise ItemError("the file is empty")
    return data


def _limit(max_megapixels: float) -> str:
    return f"{max_megapixels:g} megapixels, the limit that --max-megapixels raises"


def _check_size(size: tuple[int, int], max_megapixels: float) -> None:
    width, height = size
    if width <= 0 or height <= 0:
        raise ItemError(f"the header says {width}x{height} pixels: no photo")
    if width * height > 1e6 * max_megapixels:
        raise ItemError(f"the header says {width}x{height} pixels, more than {_limit(max_megapixels)}")


def _checked(data: bytes, max_megapixels: float) -> bytes | bytearray:
    """The file as OpenCV is to see it. Raises ItemError for what OpenCV would not tell, or would print."""
    if size := claimed_size(data):
        _check_size(size, max_megapixels)
    if data.startswith(b"\xff\xd8\xff"):
        return _checked_jpeg(data)
    if data.startswith(PNG):
        return _checked_png(data)
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _checked_tiff(data, max_megapixels)
    if data.startswith((b"BM", b"\0\0\0\x0cjP  \r\n", b"\xff\x4f\xff\x51")) or data[8:12] == b"WEBP":
        return data  # OpenCV refuses these by itself when they are cut short.
    raise ItemError("not a photo: the content is not JPEG, PNG, TIFF, WebP, BMP or JPEG 2000")


def _checked_jpeg(data: bytes) -> bytes:
    """Asks for the end-of-image marker: OpenCV versions differ in what they make of a photo without it.

    The search starts behind the header, whose segments can hold a whole thumbnail. In the coded data itself
    every 0xff is followed by 0 or a restart marker, so that the first end marker is the photo's.
    """
    segments = jpeg_segments(data)
    if data.find(b"\xff\xd9", segments[-1][1] if segments else 2) < 0:
        raise ItemError("truncated: the end of the JPEG data is missing")
    return data


def _checked_png(data: bytes) -> bytes:
    """The PNG's critical chunks, checked: libpng would print to the terminal about these and the others."""
    keep, at, kind = [data[:8]], 8, b""
    while kind != b"IEND":
        if at + 12 > len(data):
            raise ItemError("truncated: the end of the PNG data is missing")
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            raise ItemError("truncated: the end of the PNG data is missing")
        if kind[:1].isupper():
            chunk = memoryview(data)[at:end]
            if zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:]):
                raise ItemError("damaged: a checksum of the PNG data is wrong")
            keep.append(bytes(chunk))
        at = end
    return b"".join(keep)


def _checked_tiff(data: bytes, max_megapixels: float) -> bytes | bytearray:
    """The TIFF without its orientation, which OpenCV would apply whatever its flags say."""
    try:
        tags = _tiff_tags(data)
    except (struct.error, ValueError, OverflowError):
        raise ItemError("truncated or damaged: the TIFF directory lies outside the file") from None
    for sides in _SIZES:
        width, height = (max(tags[side][1], default=0) if side in tags else None for side in sides)
        if width is not None and height is not None:
            _check_size((width, height), max_megapixels)
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
