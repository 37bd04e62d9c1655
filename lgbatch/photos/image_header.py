"""Read an image's size from its file header, to check it before memory for the pixels is allocated."""

import struct
from pathlib import Path

from lgbatch.errors import ItemError

PNG = b"\x89PNG\r\n\x1a\n"
_SOI = b"\xff\xd8\xff"
_J2K = b"\xff\x4f\xff\x51"
_JPEG2000_EXIF = b"JpgTiffExif->JP2"
# Start-of-frame markers: 0xc0 to 0xcf except DHT (0xc4), JPG (0xc8) and DAC (0xcc).
_SOF_MARKERS = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def claimed_size(data: bytes) -> tuple[int, int] | None:
    """Return (width, height) from the header of a JPEG, PNG, WebP, BMP or JPEG 2000; None if there is none.

    The size is not validated: a side may be zero, and the pixel data may have another size.
    """
    try:
        if data.startswith(PNG):
            return struct.unpack_from(">II", data, 16)
        if data.startswith(_SOI):
            return _jpeg(data)
        if data.startswith(b"BM"):
            return _bmp(data)
        if data[8:12] == b"WEBP":
            return _webp(data)
        if data.startswith((b"\0\0\0\x0cjP  \r\n", _J2K)):
            return _jpeg2000(data)
    except struct.error:  # Truncated: the decoder reports it.
        pass
    return None


def jpeg_segments(data: bytes) -> list[tuple[int, int]]:
    """Return (marker, offset) of each segment of a JPEG's header, up to start-of-scan (0xda)."""
    segments, offset = [], 2
    while data[offset : offset + 1] == b"\xff" and offset + 1 < len(data):
        marker = data[offset + 1]
        if marker == 0xFF:  # Fill byte.
            offset += 1
            continue
        segments.append((marker, offset))
        if marker == 0xDA:
            break
        offset += 2 + int.from_bytes(data[offset + 2 : offset + 4])
    return segments


def _jpeg(data: bytes) -> tuple[int, int] | None:
    for marker, offset in jpeg_segments(data):
        if marker in _SOF_MARKERS:
            height, width = struct.unpack_from(">HH", data, offset + 5)
            return width, height
    return None


def _bmp(data: bytes) -> tuple[int, int]:
    (header_size,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header_size == 12 else "<ii", data, 18)
    return abs(width), abs(height)  # A negative height means top-down row order.


def _webp(data: bytes) -> tuple[int, int] | None:
    chunk = data[12:16]
    if chunk == b"VP8X":
        low, middle, high = struct.unpack_from("<HHH", data, 24)
        return 1 + low + ((middle & 0xFF) << 16), 1 + (middle >> 8) + (high << 8)
    if chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if chunk == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _jpeg2000(data: bytes) -> tuple[int, int] | None:
    offset = data.find(_J2K)  # The codestream: its SIZ segment is authoritative, the boxes before it only repeat it.
    if offset < 0:
        return None
    right, bottom, left, top = struct.unpack_from(">IIII", data, offset + 8)
    return right - left, bottom - top


def jpeg2000_exif(photo: Path) -> bytes | None:
    """Return the EXIF of a JPEG 2000 file, or None: the box JpgTiffExif->JP2, before the codestream or behind it.

    Raises OSError.
    """
    with photo.open("rb") as file:
        while len(header := file.read(8)) == 8:
            length, box = struct.unpack(">I4s", header)
            if length == 1:
                (length,) = struct.unpack(">Q", file.read(8).rjust(8, b"\0"))
                length -= 8
            if length < 8:  # 0: up to the end of the file
                return None
            content = length - 8
            if box == b"uuid" and file.read(16) == _JPEG2000_EXIF:
                return file.read(content - 16)
            file.seek(content - (16 if box == b"uuid" else 0), 1)
    return None


def megapixel_limit(max_megapixels: float) -> str:
    """Describe the limit and its option, for messages."""
    return f"the limit of {max_megapixels:g} megapixels: raise --max-megapixels"


def check_size(size: tuple[int, int], max_megapixels: float) -> None:
    """Raise ItemError if an image size (width, height) has an empty side or more than `max_megapixels`."""
    width, height = size
    if width <= 0 or height <= 0:
        raise ItemError(f"the header says {width}x{height} pixels: not a photo")
    if width * height > 1e6 * max_megapixels:
        raise ItemError(f"the header says {width}x{height} pixels, more than {megapixel_limit(max_megapixels)}")
