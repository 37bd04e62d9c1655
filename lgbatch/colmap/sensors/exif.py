"""Photo metadata by COLMAP's rules: pixel size, camera, focal length in pixels, GPS position, gravity.

The rules are those of Bitmap::ExifCameraModel and Bitmap::ExifFocalLength (src/colmap/sensor/bitmap.cc, COLMAP 4.2.1)
and GravityFromExifOrientation (src/colmap/geometry/pose_prior.cc), except that a resolution of the focal plane is not
believed if it belongs to a larger version of the photo.
"""

import math
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from lgbatch.photos.metadata import Metadata, read_metadata
from lgbatch.workspace.prefetch import prefetch

Vector = tuple[float, float, float]
_GRAVITY: dict[int | None, Vector] = {1: (0, 1, 0), 3: (0, -1, 0), 6: (1, 0, 0), 8: (-1, 0, 0)}
_THREADS, _DEPTH = 8, 64  # reading headers waits for the disk or the network
_FULL_FRAME_DIAGONAL = 43.27  # millimetres, as COLMAP rounds it
_MM_PER_UNIT = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
_SHRUNK = 0.75  # photos of the full sensor lack at most some columns of it


@dataclass(frozen=True)
class Exif:
    """Metadata of one photo. A field is None if the photo lacks it."""

    size: tuple[int, int] | None = None
    """(width, height) of the stored pixels."""
    camera: str | None = None
    """Make, model, focal length and size in one string. Photos with equal strings share a camera."""
    focal: float | None = None
    """Focal length in pixels."""
    position: Vector | None = None
    """GPS latitude and longitude in degrees, altitude in metres."""
    gravity: Vector | None = None
    """Direction of gravity in the camera (x right, y down), from the EXIF orientation; None for mirrored photos."""
    orientation: int | None = None
    """EXIF code, 1 to 8."""


def read_exif(photos: Sequence[Path]) -> Iterator[Exif]:
    """Yield the metadata of each photo, in order. All fields are None if its header cannot be read."""
    with warnings.catch_warnings():  # Pillow warns of damaged EXIF
        warnings.simplefilter("ignore")
        for metadata in prefetch(read_metadata, photos, threads=_THREADS, depth=_DEPTH):
            yield Exif() if metadata is None else by_colmaps_rules(metadata)


def by_colmaps_rules(metadata: Metadata) -> Exif:
    """Apply COLMAP's rules to the metadata of a photo."""
    position = None
    if metadata.latitude is not None and metadata.longitude is not None and metadata.altitude is not None:
        position = (metadata.latitude, metadata.longitude, metadata.altitude)
    return Exif(
        metadata.size,
        _camera(metadata),
        _focal_length(metadata),
        position,
        _GRAVITY.get(metadata.orientation),
        metadata.orientation,
    )


def _camera(metadata: Metadata) -> str | None:
    focal = metadata.focal_mm if metadata.focal_35mm is None else metadata.focal_35mm
    if metadata.make is None or metadata.model is None or focal is None:
        return None
    width, height = metadata.size
    return f"{metadata.make}-{metadata.model}-{focal:.6f}-{width}x{height}"


def _focal_length(metadata: Metadata) -> float | None:
    """The focal length in pixels, from the first of: 35 mm equivalent, resolution of the focal plane, sensor width."""
    width, height = metadata.size
    if metadata.focal_35mm is not None and metadata.focal_35mm > 0:
        return metadata.focal_35mm / _FULL_FRAME_DIAGONAL * math.sqrt(width * width + height * height)
    if metadata.focal_mm is None or metadata.focal_mm <= 0:
        return None
    sensor_width = None
    if metadata.make is not None and metadata.model is not None:
        sensor_width = _sensor_width(metadata.make, metadata.model)
    pixels_per_mm = _pixels_per_mm(metadata, sensor_width)
    if pixels_per_mm is not None:
        return metadata.focal_mm * pixels_per_mm
    return None if sensor_width is None else metadata.focal_mm / sensor_width * max(width, height)


def _pixels_per_mm(metadata: Metadata, sensor_width: float | None) -> float | None:
    """The resolution of the focal plane; None if it is missing, or if a sensor that size contradicts it."""
    resolution, mm_per_unit = metadata.focal_plane_resolution, _MM_PER_UNIT.get(metadata.focal_plane_unit or 0)
    if resolution is None or resolution <= 0 or mm_per_unit is None:
        return None
    pixels_per_mm = resolution / mm_per_unit
    long_side = max(metadata.size)
    if metadata.exif_size is not None and long_side < _SHRUNK * max(metadata.exif_size):
        if sensor_width is not None:
            return None
        return pixels_per_mm * long_side / max(metadata.exif_size)
    if sensor_width is not None and long_side < _SHRUNK * sensor_width * pixels_per_mm:
        return None
    return pixels_per_mm


@lru_cache(maxsize=1024)
def _sensor_width(make: str, model: str) -> float | None:
    """The sensor width in millimetres, from COLMAP's table of cameras; None if they are not in it.

    pycolmap gives the table only through the EXIF of photos: here of one pixel, with a focal length of 1 mm.
    """
    import pycolmap

    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = make, model
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FocalLength] = 1
    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder) / "pixel.jpg"
        try:
            Image.new("L", (1, 1)).save(photo, exif=exif)
        except (ValueError, OSError):  # names too long for EXIF
            return None
        bitmap = pycolmap.Bitmap.read(photo, as_rgb=False)
    pixels = bitmap and bitmap.exif_focal_length()
    return float(np.float32(1 / pixels)) if pixels else None
