"""Local metric frames: east, north and up at a point of WGS84, or the coordinates of a file."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_FAR = 10_000.0
"""Metres from the origin beyond which single precision, as viewers have it, shows."""


@dataclass(frozen=True)
class Frame:
    """A right-handed frame in metres.

    With degrees: x east, y north, z up, at the `origin` on the ellipsoid WGS84. Else the coordinates of a file, less
    the `origin`.
    """

    is_degrees: bool
    origin: tuple[float, float, float]
    """Latitude and longitude in degrees, altitude in metres; or coordinates in metres."""

    @classmethod
    def around(cls, positions: Array, is_degrees: bool) -> "Frame":
        """A frame near positions (N, 3), as `local` takes them. Those within 10 km of zero in metres stay as they are.

        The origin has altitude 0, so that z is about the altitude.
        """
        middle = np.median(positions, axis=0)
        if is_degrees:
            longitude = positions[0, 1] + float(np.median(_short_way(positions[:, 1] - positions[0, 1])))
            return cls(True, (round(float(middle[0]), 6), round(float(_short_way(longitude)), 6), 0.0))
        near = np.abs(positions[:, :2]).max() <= _FAR
        return cls(False, (0.0, 0.0, 0.0) if near else (float(round(middle[0])), float(round(middle[1])), 0.0))

    @property
    def is_map(self) -> bool:
        """Whether z is up: in degrees, and in coordinates as far from zero as those of maps."""
        return self.is_degrees or any(self.origin)

    def local(self, positions: Array) -> Array:
        """Convert latitude, longitude and altitude, or coordinates of the file, (N, 3) to the frame, (N, 3)."""
        if not self.is_degrees:
            return positions - self.origin
        import pycolmap

        return np.asarray(pycolmap.GPSTransform().ellipsoid_to_enu(positions, *self.origin), np.float64)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON. With degrees, they have the transform to ECEF (EPSG:4978)."""
        if not self.is_degrees:
            return {"axes": "as in the file of positions", "unit": "metre", "origin": list(self.origin)}
        return {
            "axes": "east, north, up",
            "unit": "metre",
            "origin": dict(zip(("latitude", "longitude", "altitude"), self.origin, strict=True)),
            "ellipsoid": "WGS84",
            "ecef_from_frame": self.ecef_from_frame().tolist(),
        }

    def ecef_from_frame(self) -> Array:
        """The transform (4, 4) from east, north and up to earth-centred, earth-fixed coordinates of WGS84."""
        import pycolmap

        latitude, longitude = np.radians(self.origin[:2])
        (s, c), (sl, cl) = (np.sin(latitude), np.cos(latitude)), (np.sin(longitude), np.cos(longitude))
        matrix = np.eye(4)
        matrix[:3, :3] = [[-sl, -s * cl, c * cl], [cl, -s * sl, c * sl], [0, c, s]]
        matrix[:3, 3] = pycolmap.GPSTransform().ellipsoid_to_ecef(np.array([self.origin]))[0]
        return matrix


def _short_way(degrees: Any) -> Any:
    """The same angles in -180 to 180."""
    return np.mod(degrees + 180, 360) - 180
