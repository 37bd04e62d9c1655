"""Whether known positions on the earth are near those that the EXIF of the photos tells."""

from collections.abc import Collection
from pathlib import Path

import numpy as np

from lgbatch.pairing.evidence.positions import MOST_DEGREES, exif_degrees
from lgbatch.reconstruction.georeference.frame import Frame

_FAR = 50_000.0
"""Metres. A wrong UTM zone or hemisphere moves points by more up to a latitude of 85 degrees."""
_EARTH_RADIUS = 6_371_000.0


def far_from_photos(frame: Frame, photos: Path | None, names: Collection[str], what: str, check: str) -> str:
    """Why positions around the origin of `frame` are probably wrong; empty if they are not, or it cannot be known.

    `names` are images, below the folder `photos`. `what` names the positions, and `check` says what to look at.
    """
    if not frame.is_degrees or photos is None:
        return ""
    found = exif_degrees([photos / name for name in sorted(names)])[:, :2]
    found = found[(np.abs(found) <= MOST_DEGREES).all(axis=1) & (found != 0).any(axis=1)]  # not NaN
    if not len(found):
        return ""
    latitude, longitude, _ = Frame.around(np.column_stack([found, np.zeros(len(found))]), True).origin
    distance = _distance(frame.origin[:2], (latitude, longitude))
    if distance < _FAR:
        return ""
    return (
        f"the {what} are {distance / 1000:.0f} km from the GPS positions of the photos, around latitude "
        f"{latitude:.4f} longitude {longitude:.4f}{_utm(latitude, longitude)}: check {check}"
    )


def _distance(first: tuple[float, float], second: tuple[float, float]) -> float:
    """Metres between two points, latitude and longitude in degrees, on a sphere (haversine formula)."""
    (lat1, lon1), (lat2, lon2) = np.radians(first), np.radians(second)
    half = np.sin((lat2 - lat1) / 2) ** 2 + np.cos(lat1) * np.cos(lat2) * np.sin((lon2 - lon1) / 2) ** 2
    return float(2 * _EARTH_RADIUS * np.arcsin(np.sqrt(min(float(half), 1.0))))


def _utm(latitude: float, longitude: float) -> str:
    """The usual UTM zone, in words; empty near the poles and where Norway's zones have other borders."""
    if not -80 <= latitude < 72 or (56 <= latitude < 64 and 0 <= longitude < 12):
        return ""
    zone, is_north = int((longitude + 180) // 6) % 60 + 1, latitude >= 0
    return f" (UTM zone {zone}{'N' if is_north else 'S'}, EPSG:{326 if is_north else 327}{zone:02d})"
