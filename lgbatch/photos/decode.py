"""Photos to pixels: 8-bit RGB, turned as COLMAP sees them, at the size the extractor wants."""

import math
from pathlib import Path

import cv2
import numpy as np

from lgbatch.errors import ItemError
from lgbatch.photos.image_header import megapixel_limit
from lgbatch.photos.integrity import check_container
from lgbatch.photos.resize import resized
from lgbatch.types import ImageRef, Photo

# OpenCV logs what it cannot read; a bad photo is told once, by the ItemError.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
_READ_FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
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
    data = check_container(_read(ref.path, max_megapixels), max_megapixels)
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


def _read(path: Path, max_megapixels: float) -> bytes:
    try:
        size = path.stat().st_size
        if size > _BYTES_PER_PIXEL * 1e6 * max_megapixels + _BYTES_BESIDE:
            raise ItemError(
                f"the file, of {size / 1e9:.1f} GB, is too large for a photo of {megapixel_limit(max_megapixels)}"
            )
        data = path.read_bytes()
    except OSError as error:
        raise ItemError(f"cannot be read: {error.strerror}") from None
    if not data:
        raise ItemError("the file is empty")
    return data
