"""How large a photo says it is, read from its first bytes: before anything makes room for that many pixels."""

import struct

from lgbatch.errors import ItemError

PNG = b"\x89PNG\r\n\x1a\n"
_SOI = b"\xff\xd8\xff"
_J2K = b"\xff\x4f\xff\x51"
# Start-of-frame markers: all of 0xc0 to 0xcf but those of tables, extensions and arithmetic coding.
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def claimed_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) as the header of a JPEG, PNG, WebP, BMP or JPEG 2000 has it; None where it cannot be found.

    Not looked at further: a size may be zero, and the file may hold anything else behind the header.
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
    except struct.error:  # It is cut short: the decoder says so.
        pass
    return None


def jpeg_segments(data: bytes) -> list[tuple[int, int]]:
    """Marker and position of each segment of a JPEG's header, the start of its coded data (0xda) last."""
    segments, at = [], 2
    while data[at : at + 1] == b"\xff" and at + 1 < len(data):
        marker = data[at + 1]
        if marker == 0xFF:  # Fill.
            at += 1
            continue
        segments.append((marker, at))
        if marker == 0xDA:
            break
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return segments


def _jpeg(data: bytes) -> tuple[int, int] | None:
    for marker, at in jpeg_segments(data):
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
    return None


def _bmp(data: bytes) -> tuple[int, int]:
    (header,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header == 12 else "<ii", data, 18)
    return abs(width), abs(height)  # A height below zero: the top row comes first.


def _webp(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        low, middle, high = struct.unpack_from("<HHH", data, 24)
        return 1 + low + ((middle & 0xFF) << 16), 1 + (middle >> 8) + (high << 8)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _jpeg2000(data: bytes) -> tuple[int, int] | None:
    at = data.find(_J2K)  # The codestream, of which the boxes before it are but an account.
    if at < 0:
        return None
    right, bottom, left, top = struct.unpack_from(">IIII", data, at + 8)
    return right - left, bottom - top


def megapixel_limit(max_megapixels: float) -> str:
    return f"{max_megapixels:g} megapixels, the limit that --max-megapixels raises"


def check_size(size: tuple[int, int], max_megapixels: float) -> None:
    width, height = size
    if width <= 0 or height <= 0:
        raise ItemError(f"the header says {width}x{height} pixels: no photo")
    if width * height > 1e6 * max_megapixels:
        raise ItemError(f"the header says {width}x{height} pixels, more than {megapixel_limit(max_megapixels)}")
