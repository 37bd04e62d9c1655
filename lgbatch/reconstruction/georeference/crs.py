"""Coordinate reference systems: latitude, longitude and altitude of coordinates in them.

WGS84 in degrees and its UTM zones need no other package; pyproj (the extra `geo`) reads all other ones.
"""

import re
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lgbatch.errors import InputError

Array = NDArray[np.float64]
ToDegrees = Callable[[Array], Array]
"""Converts x, y and z (N, 3), with longitude as x, to latitude and longitude in degrees and altitude in metres.

Points outside of the system become NaN, or infinite."""
_DEGREES = re.compile(r"(epsg:)?(4326|4979)|wgs ?84|(?=.*\+proj=(longlat|latlong))(?!.*\+(towgs84|ellps=(?!wgs84))).*")
_UTM = re.compile(r"wgs ?84[ /]+utm (zone )?(?P<zone>\d\d?) ?(?P<half>[ns])")
_UTM_CODE = re.compile(r"(epsg:)?32(?P<half>[67])(?P<zone>\d\d)")
_UTM_PROJ = re.compile(
    r"(?=.*\+proj=utm)(?=.*\+(datum|ellps)=wgs84)(?=.*\+zone=(?P<zone>\d\d?)\b)(?!.*\+(units=(?!m\b)|to_meter|towgs84)).*"
)
_EASTINGS = 0.0, 1_000_000.0
"""Of a UTM zone and its neighbours: 500,000 is the middle."""


def to_degrees(crs: str) -> ToDegrees:
    """Return the conversion from a reference system: EPSG:32633, WGS84 UTM 33N, WGS84, or what PROJ understands.

    Raises InputError if there is no such system, or if it needs pyproj and that is not installed.
    """
    text = " ".join(crs.lower().split())
    if _DEGREES.fullmatch(text):
        return lambda points: points[:, [1, 0, 2]]
    for pattern in _UTM, _UTM_CODE, _UTM_PROJ:
        found = pattern.fullmatch(text)
        if found and 1 <= int(found["zone"]) <= 60:
            half = found.groupdict().get("half") or ("s" if "+south" in text else "n")
            return _from_utm(int(found["zone"]), half in "n6")
    return _by_pyproj(crs)


def _from_utm(zone: int, is_north: bool) -> ToDegrees:
    def convert(points: Array) -> Array:
        import pycolmap

        degrees = np.asarray(pycolmap.GPSTransform().utm_to_ellipsoid(points, zone, is_north), np.float64)
        degrees[(points[:, 0] < _EASTINGS[0]) | (points[:, 0] > _EASTINGS[1])] = np.nan
        return degrees

    return convert


def _by_pyproj(crs: str) -> ToDegrees:
    try:
        import pyproj
    except ImportError:
        raise InputError(
            f"coordinates in '{crs}' need pyproj: pip install 'lgbatch[geo]', or convert them to WGS84 or its UTM zone"
        ) from None
    try:
        transformer = pyproj.Transformer.from_crs(pyproj.CRS.from_user_input(crs), 4326, always_xy=True)
    except pyproj.exceptions.ProjError:
        raise InputError(
            f"'{crs}' is no coordinate reference system: give one such as EPSG:32633 or WGS84 UTM 33N"
        ) from None

    def convert(points: Array) -> Array:
        longitude, latitude, altitude = transformer.transform(points[:, 0], points[:, 1], points[:, 2])
        return np.column_stack([latitude, longitude, altitude])

    return convert
