"""Check a photo file before decoding: format, image size, truncation and checksums."""

import struct
import zlib

from lgbatch.errors import ItemError
from lgbatch.photos.image_header import PNG, check_size, claimed_size, jpeg_segments
from lgbatch.photos.tiff import check_tiff


def check_container(data: bytes, max_megapixels: float) -> bytes | bytearray:
    """Check a photo file, and return the bytes to decode.

    Covers the damage that OpenCV decodes without an error or reports by printing to the terminal. The returned
    bytes of a PNG lack its ancillary chunks, those of a TIFF its orientation. Raises ItemError.
    """
    if size := claimed_size(data):
        check_size(size, max_megapixels)
    if data.startswith(b"\xff\xd8\xff"):
        return _check_jpeg(data)
    if data.startswith(PNG):
        return _check_png(data)
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return check_tiff(data, max_megapixels)
    if data.startswith((b"BM", b"\0\0\0\x0cjP  \r\n", b"\xff\x4f\xff\x51")) or data[8:12] == b"WEBP":
        return data  # OpenCV itself rejects these when truncated.
    raise ItemError("not a photo: the content is not JPEG, PNG, TIFF, WebP, BMP or JPEG 2000")


def _check_jpeg(data: bytes) -> bytes:
    """Require the end-of-image marker: OpenCV versions differ in how they treat a JPEG without it.

    The search starts after the header, because a header segment can contain a whole thumbnail. In the coded
    data every 0xff is followed by 0 or a restart marker, so the first end marker is that of the photo.
    """
    segments = jpeg_segments(data)
    if data.find(b"\xff\xd9", segments[-1][1] if segments else 2) < 0:
        raise ItemError("truncated: the end of the JPEG data is missing")
    return data


def _check_png(data: bytes) -> bytes:
    """Check the critical chunks, and drop the others: libpng prints warnings about damage in either kind."""
    critical, offset, chunk_type = [data[:8]], 8, b""
    while chunk_type != b"IEND":
        if offset + 12 > len(data):
            raise ItemError("truncated: the end of the PNG data is missing")
        length, chunk_type = struct.unpack_from(">I4s", data, offset)
        end = offset + 12 + length
        if end > len(data):
            raise ItemError("truncated: the end of the PNG data is missing")
        if chunk_type[:1].isupper():
            chunk = memoryview(data)[offset:end]
            if zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:]):
                raise ItemError("damaged: a checksum of the PNG data is wrong")
            critical.append(bytes(chunk))
        offset = end
    return b"".join(critical)
