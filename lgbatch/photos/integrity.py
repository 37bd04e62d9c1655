"""Photos to pixels: 8-bit RGB, turned as COLMAP sees them, at the size the extractor wants."""

import struct
import zlib

from lgbatch.errors import ItemError
from lgbatch.photos.image_header import PNG, check_size, claimed_size, jpeg_segments
from lgbatch.photos.tiff import check_tiff


def check_container(data: bytes, max_megapixels: float) -> bytes | bytearray:
    """The file as OpenCV is to see it. Raises ItemError for what OpenCV would not tell, or would print."""
    if size := claimed_size(data):
        check_size(size, max_megapixels)
    if data.startswith(b"\xff\xd8\xff"):
        return _checked_jpeg(data)
    if data.startswith(PNG):
        return _checked_png(data)
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return check_tiff(data, max_megapixels)
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
