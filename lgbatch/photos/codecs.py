"""Bytes of a photo -> pixels, by the library that reads its format.

JPEG is decoded by libjpeg-turbo through simplejpeg, which reports missing data where OpenCV prints a line and goes on;
the pixels are the same. HEIF and AVIF are read by Pillow, raw photos by LibRaw, the other formats by OpenCV.
"""

import io

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from lgbatch.errors import ItemError
from lgbatch.photos.formats import HAS_RAW, PILLOW_FORMATS
from lgbatch.photos.image_header import PNG, check_size
from lgbatch.types import BoolArray, ByteArray

# OpenCV prints decoding errors to the terminal; the ItemError already reports a bad photo.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
_READ_FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
_CAN_HOLD_16_BITS = (PNG, b"II", b"MM", b"\0\0\0\x0cjP  \r\n", b"\xff\x4f\xff\x51")
_NARROW = 64
"""Grey levels, of 256: 16-bit photos with fewer are stretched."""
REDUCED_FROM = {2: 4, 4: 8}
"""JPEGs that are shrunk this many times (the value) are decoded at 1/2 or 1/4 of their size (the key).

Averaging is left a factor of 2 or more. Measured on 24 MP shrunk 8 to 12 times: grey levels change by 0.1 (1/2) and 0.3
(1/4) on average, and 97 and 96 percent of DISK's keypoints stay within half a pixel."""
_RANGE_PERCENTILES = (0.1, 99.9)
_CAN_BE_TRANSPARENT = tuple(sorted({"PNG", "WEBP", "AVIF", "HEIF"}.intersection(PILLOW_FORMATS)))


def pixels_of(data: bytes | bytearray, shrink: float = 1) -> tuple[ByteArray, int]:
    """Decode a photo that is not raw to (H, W, 3) uint8 RGB of the stored pixels. Raises ItemError.

    A JPEG whose pixels will be shrunk `shrink` times is decoded at a reduced size, as REDUCED_FROM says. Returns the
    pixels, and by how much they are reduced: 1, 2 or 4.

    16-bit photos keep their upper 8 bits. If these have less than a quarter of the 256 levels, as in thermal and 12-bit
    photos, the range between two percentiles of the 16 bits is stretched to 8 instead.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg(bytes(data), shrink)
    if data[4:8] == b"ftyp":
        return _by_pillow(bytes(data)), 1
    return _by_opencv(data), 1


def raw_pixels(data: bytes, max_megapixels: float) -> ByteArray:
    """Develop a raw photo to (H, W, 3) uint8 RGB, with the camera's white balance, not turned. Raises ItemError."""
    if not HAS_RAW:
        raise ItemError("a raw photo: pip install 'lgbatch[raw]' to read it")
    import rawpy

    try:
        with rawpy.imread(io.BytesIO(data)) as raw:
            check_size((raw.sizes.iwidth, raw.sizes.iheight), max_megapixels)
            return np.ascontiguousarray(raw.postprocess(use_camera_wb=True, user_flip=0, output_bps=8), np.uint8)
    except rawpy.LibRawError as error:
        reason = error.args[0].decode(errors="replace") if error.args and isinstance(error.args[0], bytes) else error
        raise ItemError(f"cannot be decoded: {_one_line(reason)}") from None


def visible_pixels(data: bytes) -> BoolArray | None:
    """Return where the alpha of a photo is not 0, (H, W); None if that is everywhere."""
    try:
        with Image.open(io.BytesIO(data), formats=_CAN_BE_TRANSPARENT) as image:
            if not image.has_transparency_data:
                return None
            visible = np.asarray(image.convert("RGBA").getchannel("A")) > 0
    except Exception:  # Pillow raises many types on damaged files; the pixels were decoded
        return None
    return None if visible.all() else visible


def _jpeg(data: bytes, shrink: float) -> tuple[ByteArray, int]:
    """Decode a JPEG, reduced as `shrink` allows. One whose pixels are all there needs no end marker."""
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    except (ValueError, KeyError):  # chroma subsampling that simplejpeg does not know
        return _by_opencv(data), 1
    try:
        if colors in ("CMYK", "YCCK"):
            return _by_opencv(data), 1
        # Of a side that is no multiple, the reduced pixels would reach beyond the photo.
        fitting = [n for n, least in REDUCED_FROM.items() if shrink >= least and height % n == width % n == 0]
        divisor = max(fitting, default=1)
        size = {"min_height": height // divisor, "min_width": width // divisor}
        try:
            return np.asarray(simplejpeg.decode_jpeg(data, "RGB", **size)), divisor
        except ValueError as error:
            if "premature end" in str(error).lower():
                raise ItemError("truncated or damaged: part of the JPEG's pixels is missing") from None
            if "huffman" in str(error).lower():
                raise ItemError(f"damaged: {_one_line(error)}") from None
        # Other warnings are harmless, for instance of bytes before a marker.
        return np.asarray(simplejpeg.decode_jpeg(data, "RGB", strict=False, **size)), divisor
    except ValueError as error:
        raise ItemError(f"cannot be decoded: {_one_line(error)}") from None


def _by_pillow(data: bytes) -> ByteArray:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.array(image.convert("RGB"))
    except Exception as error:  # Pillow and its plugins raise many types on damaged files
        raise ItemError(f"cannot be decoded: {_one_line(error)}") from None


def _by_opencv(data: bytes | bytearray) -> ByteArray:
    pixels = _imdecode(data, _READ_FLAGS)
    if data.startswith(_CAN_HOLD_16_BITS) and _levels(pixels) < _NARROW:
        deep = _imdecode(data, _READ_FLAGS | cv2.IMREAD_ANYDEPTH)
        if deep.dtype == np.uint16:
            pixels = _stretch(deep)
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)


def _imdecode(data: bytes | bytearray, flags: int) -> NDArray[np.uint8 | np.uint16]:
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ItemError(f"cannot be decoded: {' '.join(error.err.split())}") from None
    if pixels is None:
        raise ItemError("cannot be decoded: truncated, damaged or in an unsupported format")
    return np.asarray(pixels)


def _levels(pixels: NDArray[np.uint8 | np.uint16]) -> float:
    low, high = np.percentile(pixels[::4, ::4], _RANGE_PERCENTILES)
    return float(high - low)


def _stretch(pixels: NDArray[np.uint8 | np.uint16]) -> ByteArray:
    low, high = np.percentile(pixels[::4, ::4], _RANGE_PERCENTILES)
    table = (np.arange(65536) - low) * (255 / max(high - low, 1))
    return np.asarray(np.clip(np.rint(table), 0, 255).astype(np.uint8)[pixels])


def _one_line(error: Exception | str) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
