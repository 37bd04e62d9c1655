"""Decode photos to 8-bit RGB, in the orientation that COLMAP uses, resized for the extractor."""

import math
from pathlib import Path

import cv2
import numpy as np

from lgbatch.errors import ItemError
from lgbatch.photos.image_header import megapixel_limit
from lgbatch.photos.integrity import check_container
from lgbatch.photos.resize import resized_size
from lgbatch.types import ImageRef, Photo

# OpenCV prints decoding errors to the terminal; the ItemError already reports a bad photo.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
_READ_FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
_MAX_BYTES_PER_PIXEL, _MAX_METADATA_BYTES = 16, 64 << 20
"""Upper bounds on the size of a photo's file. Metadata includes EXIF, previews, and the video of a motion photo."""


def decode(ref: ImageRef, resize: int, max_megapixels: float = math.inf) -> Photo:
    """Read a photo, and shrink its long side to `resize` pixels by area averaging (0: keep; never enlarges).

    The EXIF, TIFF or PNG orientation is not applied, because COLMAP (checked with pycolmap 4.2.1) does not
    apply it either. 16-bit photos keep their upper 8 bits, alpha is dropped, grey is replicated to three
    channels. Thread-safe.

    Raises ItemError if the file cannot be read, is truncated or damaged, or is not JPEG, PNG, TIFF, WebP, BMP
    or JPEG 2000 with integer pixels; also, before any pixel memory is allocated, if the header gives more than
    `max_megapixels` million pixels.
    """
    data = check_container(_read(ref.path, max_megapixels), max_megapixels)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), _READ_FLAGS)
    except cv2.error as error:
        raise ItemError(f"cannot be decoded: {' '.join(error.err.split())}") from None
    if pixels is None:
        raise ItemError("cannot be decoded: truncated, damaged or in an unsupported format")
    height, width = pixels.shape[:2]
    size = resized_size(width, height, resize)
    if size != (width, height):
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    rgb = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)
    return Photo(ref.name, rgb, (width, height))


def _read(path: Path, max_megapixels: float) -> bytes:
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES_PER_PIXEL * 1e6 * max_megapixels + _MAX_METADATA_BYTES:
            raise ItemError(f"the file ({size / 1e9:.1f} GB) is too large for {megapixel_limit(max_megapixels)}")
        data = path.read_bytes()
    except OSError as error:
        raise ItemError(f"cannot be read: {error.strerror}") from None
    if not data:
        raise ItemError("the file is empty")
    return data
