"""Small pictures of the photos, upright, as WebP, within a budget of bytes."""

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from PIL import Image

from lgbatch.photos.decode import decode
from lgbatch.report.photos import PhotoRow
from lgbatch.types import ImageRef

_BUDGET = 4_500_000
"""Bytes of all thumbnails."""
_SIDES = (640, 512, 400, 320, 256, 192, 160, 128, 96)
_BYTES_PER_PIXEL = 0.16
"""Of a photo rich in detail at this quality."""
_QUALITY = 62


def side_for(count: int) -> int:
    """Return the long side in pixels of so many thumbnails."""
    fitting = [side for side in _SIDES if count * side * side * 0.75 * _BYTES_PER_PIXEL <= _BUDGET]
    return fitting[0] if fitting else _SIDES[-1]


def make_thumbnails(folder: Path | None, rows: Sequence[PhotoRow], max_megapixels: float, threads: int) -> list[bytes]:
    """Return the thumbnail of each photo, empty if it is gone, has failed, or is larger than `max_megapixels`."""
    if folder is None or not folder.is_dir():
        return [b""] * len(rows)
    side = side_for(len(rows))
    refs = [ImageRef(row.name, folder / row.name, orientation=row.orientation) for row in rows]
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        make = partial(_thumbnail, side=side, max_megapixels=max_megapixels)
        return list(pool.map(lambda row, ref: b"" if row.cause == "failed" else make(ref), rows, refs))


def has_photo(folder: Path | None, row: PhotoRow) -> bool:
    """Whether the file of a photo is there."""
    try:
        return folder is not None and (folder / row.name).is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _thumbnail(ref: ImageRef, side: int, max_megapixels: float) -> bytes:
    try:
        pixels = decode(ref, side, max_megapixels).pixels
    except Exception:  # whatever a damaged photo or a short memory raises: the page tells why the photo failed
        return b""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "WEBP", quality=_QUALITY, method=2)
    return stream.getvalue()
