"""Check a photo file before decoding: format, image size, truncation and checksums."""

import io
import struct
import zlib

from PIL import Image

from lgbatch.errors import ItemError
from lgbatch.photos.formats import HAS_HEIF
from lgbatch.photos.image_header import PNG, check_size, claimed_size, jpeg_segments
from lgbatch.photos.tiff import check_tiff

_EOI = b"\xff\xd9"
_FILL = 16  # zeros at the end: the rest of a file that was allocated and never written


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
    if data[4:8] == b"ftyp":
        return _check_heif(data, max_megapixels)
    raise ItemError("not a photo: the content is not JPEG, PNG, TIFF, WebP, BMP, JPEG 2000, AVIF or HEIF")


def _check_jpeg(data: bytes) -> bytes:
    """Return the JPEG with an end marker: it may lack one if all pixels are there, which the decoder finds out.

    The search stops at the header, because a header segment can contain a whole thumbnail.
    """
    segments = jpeg_segments(data)
    if not segments or segments[-1][0] != 0xDA or data.endswith(bytes(_FILL)):
        if data.rfind(_EOI, segments[-1][1] if segments else 2) < 0:
            raise ItemError("truncated: the end of the JPEG data is missing")
        return data
    return data if data.rfind(_EOI, segments[-1][1]) >= 0 else data + _EOI


def _check_heif(data: bytes, max_megapixels: float) -> bytes:
    """Check the size that the header of a HEIF or AVIF gives."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            size = image.size
    except Exception as error:  # Pillow and its plugins raise many types on damaged files
        hint = "damaged, or of an unsupported kind" if HAS_HEIF else "HEIF: pip install 'lgbatch[heif]' to read it"
        raise ItemError(f"cannot be decoded: {hint}") from error
    check_size(size, max_megapixels)
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
