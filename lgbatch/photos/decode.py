"""Decode photos to 8-bit RGB, turned upright and resized for the extractor."""

import math
from contextlib import suppress
from pathlib import Path
from threading import Lock

import cv2
import numpy as np

from lgbatch.errors import ItemError
from lgbatch.photos.codecs import REDUCED_FROM, pixels_of, raw_pixels, visible_pixels
from lgbatch.photos.coordinates import resized_size, turn, upright_size
from lgbatch.photos.file_hash import file_size_and_time
from lgbatch.photos.formats import is_raw
from lgbatch.photos.image_header import claimed_size, megapixel_limit
from lgbatch.photos.integrity import check_container
from lgbatch.types import ImageRef, Photo

_MAX_BYTES_PER_PIXEL, _MAX_METADATA_BYTES = 16, 64 << 20
"""Upper bounds on the size of a photo's file. Metadata includes EXIF, previews, and the video of a motion photo."""

DECODING = {"jpeg": ", ".join(f"1/{divisor} if shrunk {least} times" for divisor, least in REDUCED_FROM.items())}
"""What the provenance of features says about the decoding of their photos."""


def decode(ref: ImageRef, resize: int, max_megapixels: float = math.inf) -> Photo:
    """Read a photo, turn it, and shrink its long side to `resize` pixels by area averaging (0: keep; never enlarges).

    The photo is turned by ref.orientation, before it is shrunk: a photo turned back has the same pixels. The tag in the
    file is not read: COLMAP (checked with pycolmap 4.2.1) does not apply it. 16-bit photos keep their upper 8 bits, or
    are stretched if they have few levels (codecs.pixels_of); grey is replicated to three channels. Where alpha is 0, a
    mask (not turned) is False. JPEGs that are shrunk 4 times or more are decoded at 1/2 of their size, those that are
    shrunk 8 times or more at 1/4. Thread-safe.

    Raises ItemError if the file cannot be read, is truncated or damaged, or has a format that the installed packages
    do not read, or other than integer pixels; also, before any pixel memory is allocated, if the header gives more
    than `max_megapixels` million pixels.
    """
    data = _read(ref.path, max_megapixels)
    visible, divisor = None, 1
    if is_raw(ref.path):
        pixels = raw_pixels(data, max_megapixels)
    else:
        checked = check_container(data, max_megapixels)
        long_side = max(claimed_size(data) or (0, 0))
        pixels, divisor = pixels_of(checked, long_side / resize if resize else 1)
        visible = visible_pixels(data)
    height, width = (side * divisor for side in pixels.shape[:2])
    pixels = turn(pixels, ref.orientation)
    size = resized_size(*upright_size((width, height), ref.orientation), resize)
    if size != pixels.shape[1::-1]:
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    return Photo(ref.name, pixels, (width, height), () if visible is None else (visible,), ref.orientation)


class DecodedPhotos:
    """Photos that one stage has decoded, kept in the memory for the next one. Thread-safe."""

    def __init__(self) -> None:
        """Keep nothing yet."""
        self._photos: dict[str, tuple[Photo, int, tuple[int, int]]] = {}
        self._bytes = 0
        self._lock = Lock()

    def decode(self, ref: ImageRef, resize: int, max_megapixels: float, most: int) -> Photo:
        """Decode a photo, and keep it for `take` unless all would have more than `most` bytes, or it has a mask."""
        try:
            file = file_size_and_time(ref)  # first, so that a later change of the file is noticed
        except OSError as error:
            raise ItemError(f"cannot be read: {error.strerror}") from None
        photo = decode(ref, resize, max_megapixels)
        with self._lock:
            fits = self._bytes + photo.pixels.nbytes <= most
            if fits and not photo.masks and ref.name not in self._photos:
                self._bytes += photo.pixels.nbytes
                self._photos[ref.name] = photo, resize, file
        return photo

    def take(self, ref: ImageRef, resize: int) -> Photo | None:
        """Return what `decode` would give, and forget it; None if it was not kept, or the file has changed since."""
        with self._lock:
            photo, resized, file = self._photos.pop(ref.name, (None, 0, (0, 0)))
            self._bytes -= photo.pixels.nbytes if photo else 0
        with suppress(OSError):  # decode reports it
            if photo and (photo.orientation, resized, file) == (ref.orientation, resize, file_size_and_time(ref)):
                return photo
        return None

    def clear(self) -> None:
        """Forget all photos."""
        with self._lock:
            self._photos.clear()
            self._bytes = 0


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
