"""Photo metadata as COLMAP reads it: pixel size, camera, focal length, GPS position."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Exif:
    """Metadata of one photo. A field is None if the photo lacks it."""

    size: tuple[int, int] | None = None
    """(width, height) of the stored pixels."""
    camera: str | None = None
    """Make, model, focal length and size in one string. Photos with equal strings share a camera."""
    focal: float | None = None
    """Focal length in pixels."""
    position: tuple[float, float, float] | None = None
    """GPS latitude and longitude in degrees, altitude in metres."""


def read_exif(photo: Path) -> Exif:
    """Read the metadata of `photo`. All fields are None if COLMAP cannot read it (pycolmap 4.2.1: WebP, JPEG 2000).

    Decodes the photo, about 80 ms for 6 megapixels: pycolmap offers no other access to EXIF. pycolmap holds the GIL
    throughout, so threads do not help.
    """
    import pycolmap

    bitmap = pycolmap.Bitmap.read(photo, as_rgb=False)
    if bitmap is None:
        return Exif()
    position = None
    latitude, longitude, altitude = bitmap.exif_latitude(), bitmap.exif_longitude(), bitmap.exif_altitude()
    if latitude is not None and longitude is not None and altitude is not None:
        position = (latitude, longitude, altitude)
    return Exif((bitmap.width, bitmap.height), bitmap.exif_camera_model(), bitmap.exif_focal_length(), position)
