"""Read a photo's size and EXIF from the header of its file, without decoding its pixels.

Pillow parses every format but the raw ones. Its warnings about damaged EXIF can be ignored: such fields are None.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from lgbatch.photos.formats import PILLOW_FORMATS, is_raw
from lgbatch.photos.image_header import jpeg2000_exif

Tags = Mapping[int, Any]
"""Values of an EXIF directory, by tag."""
_REMEMBERED = 100_000
"""Photos whose metadata are kept in the memory, about 1 KB each."""
_GIMBAL = [re.compile(rb":Gimbal%sDegree(?:=\"|>)\s*([+-]?[0-9.]+)" % angle) for angle in (b"Yaw", b"Pitch")]
"""Attributes or elements of XMP."""


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What the header of a photo says. A field of EXIF is None if the photo lacks it or it is damaged."""

    size: tuple[int, int]
    """(width, height) of the stored pixels: the orientation is not applied."""
    orientation: int | None = None
    """EXIF orientation, 1 to 8: how to turn the stored pixels upright."""
    make: str | None = None
    model: str | None = None
    focal_mm: float | None = None
    """Focal length of the lens in millimetres."""
    focal_35mm: float | None = None
    """Focal length in millimetres of the lens with the same diagonal view on 36 x 24 mm."""
    focal_plane_resolution: float | None = None
    """Pixels on the sensor per unit, along x."""
    focal_plane_unit: int | None = None
    """Unit of the resolution: 2 inch, 3 centimetre, 4 millimetre, 5 micrometre."""
    exif_size: tuple[int, int] | None = None
    """(width, height) when the camera wrote the EXIF. Differs from `size` if the photo was shrunk or cropped since."""
    latitude: float | None = None
    """Degrees, north positive."""
    longitude: float | None = None
    """Degrees, east positive."""
    altitude: float | None = None
    """Metres, above sea level positive."""
    gimbal_yaw: float | None = None
    """Heading of a drone's camera in degrees, clockwise from north, as its XMP says."""
    gimbal_pitch: float | None = None
    """Degrees above the horizon: -90 looks straight down."""


def read_metadata(photo: Path) -> Metadata | None:
    """Read the metadata of `photo`, or return None if its header cannot be read. Thread-safe.

    Numbers are rounded to single precision, as COLMAP holds them. The header of a file that has not changed since is
    not read again: several stages of a run need it.
    """
    try:
        status = photo.stat()
        return _read(photo, status.st_size, status.st_mtime_ns)
    except Exception:  # Pillow raises many types on damaged files
        return None


@lru_cache(_REMEMBERED)
def _read(photo: Path, _size: int, _mtime_ns: int) -> Metadata:
    return _raw_metadata(photo) if is_raw(photo) else _pillow_metadata(photo)


def _pillow_metadata(photo: Path) -> Metadata:
    with Image.open(photo, formats=PILLOW_FORMATS) as image:
        exif, size = _exif(image, photo), image.size
        orientation = _integer(exif, ExifTags.Base.Orientation)
        if image.format == "TIFF" and orientation in (5, 6, 7, 8):  # Pillow gives the size of the upright image
            size = size[::-1]
        metadata = _metadata(size, exif)  # directories of a TIFF are read from the file when they are asked for
        yaw, pitch = _gimbal(image.info.get("xmp"))
        return replace(metadata, gimbal_yaw=yaw, gimbal_pitch=pitch)


def _raw_metadata(photo: Path) -> Metadata:
    """Size by LibRaw; EXIF of the raw formats that are like TIFF."""
    size, exif = _raw_size(photo), Image.Exif()
    with photo.open("rb") as file:
        try:
            exif.load_from_fp(file)
            return _metadata(size, exif)
        except Exception:  # another layout, or damaged, as above
            return Metadata(size=size)


def _raw_size(photo: Path) -> tuple[int, int]:
    """Read the (width, height) of a raw photo's stored pixels. Raises rawpy.LibRawError, and ImportError without it."""
    import rawpy

    with rawpy.imread(str(photo)) as raw:
        return raw.sizes.iwidth, raw.sizes.iheight


def _metadata(size: tuple[int, int], tags: Image.Exif) -> Metadata:
    photo_tags, gps = _directory(tags, ExifTags.IFD.Exif), _directory(tags, ExifTags.IFD.GPSInfo)
    exif_width, exif_height = (
        _integer(photo_tags, tag) for tag in (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight)
    )
    return Metadata(
        size=size,
        orientation=_integer(tags, ExifTags.Base.Orientation),
        make=_text(tags, ExifTags.Base.Make),
        model=_text(tags, ExifTags.Base.Model),
        focal_mm=_number(photo_tags, ExifTags.Base.FocalLength),
        focal_35mm=_number(photo_tags, ExifTags.Base.FocalLengthIn35mmFilm),
        focal_plane_resolution=_number(photo_tags, ExifTags.Base.FocalPlaneXResolution),
        focal_plane_unit=_integer(photo_tags, ExifTags.Base.FocalPlaneResolutionUnit),
        exif_size=(exif_width, exif_height) if exif_width and exif_height else None,
        **_position(gps),
    )


def _gimbal(xmp: object) -> tuple[float | None, float | None]:
    """Yaw and pitch of the gimbal from an XMP packet, by the names that DJI gave them and others use."""
    packet = xmp if isinstance(xmp, bytes) else b""
    yaw, pitch = (re.search(pattern, packet) for pattern in _GIMBAL)
    return _single(yaw[1]) if yaw else None, _single(pitch[1]) if pitch else None


def _exif(image: Image.Image, photo: Path) -> Image.Exif:
    if image.format == "TIFF":
        return image.getexif()
    exif = Image.Exif()  # image.getexif() decodes a PNG, in search of a chunk behind the pixels
    data = jpeg2000_exif(photo) if image.format == "JPEG2000" else image.info.get("exif")
    if data:
        exif.load(data)
    return exif


def _directory(exif: Image.Exif, tag: int) -> Tags:
    try:
        return exif.get_ifd(tag)
    except Exception:  # damaged, as above
        return {}


def _position(gps: Tags) -> dict[str, float | None]:
    altitude = _number(gps, ExifTags.GPS.GPSAltitude)
    if altitude is not None and altitude > 0 and gps.get(ExifTags.GPS.GPSAltitudeRef) in (1, b"\1"):
        altitude = -altitude
    return {
        "latitude": _degrees(gps, ExifTags.GPS.GPSLatitude, ExifTags.GPS.GPSLatitudeRef, "S"),
        "longitude": _degrees(gps, ExifTags.GPS.GPSLongitude, ExifTags.GPS.GPSLongitudeRef, "W"),
        "altitude": altitude,
    }


def _degrees(gps: Tags, tag: int, reference_tag: int, negative: str) -> float | None:
    values = gps.get(tag)
    if not isinstance(values, tuple) or len(values) != 3:
        return None
    degrees, minutes, seconds = (_single(value) for value in values)
    if degrees is None or minutes is None or seconds is None:
        return None
    angle = degrees + minutes / 60 + seconds / 3600
    reference = _text(gps, reference_tag)
    return -angle if reference and reference.upper() == negative and angle > 0 else angle


def _text(tags: Tags, tag: int) -> str | None:
    value = tags.get(tag)
    return value.partition("\0")[0] if isinstance(value, str) else None


def _number(tags: Tags, tag: int) -> float | None:
    return _single(tags.get(tag))


def _integer(tags: Tags, tag: int) -> int | None:
    value = tags.get(tag)
    return value if isinstance(value, int) else None


def _single(value: object) -> float | None:
    """The number in single precision, or None if it is no finite number."""
    try:
        number = float(np.float32(float(value)))  # type: ignore[arg-type]
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if math.isfinite(number) else None
