"""COLMAP's library and its files: its log, its databases on disk, photos as it reads them, images as it stores them.

pycolmap is imported inside the functions: where it comes before zlib or numpy, its own symbols shadow theirs.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Exif:
    """What COLMAP reads in a photo besides its pixels; None for what the photo does not tell."""

    size: tuple[int, int] | None = None
    """(width, height) of the file's pixels."""
    camera: str | None = None
    """Make, model, focal length and size in one string: photos that agree in it share a camera."""
    focal: float | None = None
    """Focal length in pixels."""
    position: tuple[float, float, float] | None = None
    """GPS latitude and longitude in degrees, altitude in metres."""


def read_exif(photo: Path) -> Exif:
    """What COLMAP reads in `photo`; all None where it cannot, as with pycolmap 4.2.1 and WebP or JPEG 2000.

    Decodes the photo, about 80 ms for 6 megapixels: pycolmap gives no other way to its EXIF. It holds the
    interpreter's lock all the while, so that threads do not help.
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
