"""Cameras as most programs describe them: focal lengths, principal point, radial and tangential distortion."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lgbatch.errors import InputError

if TYPE_CHECKING:
    import pycolmap

_FISHEYE = ("OPENCV_FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE")


@dataclass(frozen=True)
class Lens:
    """A camera with OpenCV's distortion, perspective or fisheye. The first pixel has its centre at (0.5, 0.5)."""

    size: tuple[int, int]
    """(width, height)."""
    focal: tuple[float, float]
    centre: tuple[float, float]
    radial: tuple[float, float, float, float] = (0, 0, 0, 0)
    """k1 to k4: factor 1 + k1 r^2 + k2 r^4 + k3 r^6 + k4 r^8 of the radius r; of fisheyes, of the angle."""
    tangential: tuple[float, float] = (0, 0)
    """OpenCV's p1 and p2."""
    fisheye: bool = False

    @classmethod
    def of(cls, camera: "pycolmap.Camera", program: str) -> "Lens":
        """Convert a camera of COLMAP. Raises InputError, which names the `program`, if it has more parameters."""
        focal = camera.focal_length_x, camera.focal_length_y
        extra = list(map(float, camera.params[list(camera.extra_params_idxs())]))
        radial, tangential = _distortion(camera.model_name, extra)
        if radial is None:
            raise InputError(
                f"{program} has no camera model {camera.model_name}: run `lgbatch undistort` and convert its folder"
            )
        return cls(
            (camera.width, camera.height),
            focal,
            (camera.principal_point_x, camera.principal_point_y),
            radial,
            tangential,
            camera.model_name in _FISHEYE,
        )


_Radial = tuple[float, float, float, float]


def _distortion(model: str, extra: list[float]) -> tuple[_Radial | None, tuple[float, float]]:
    """Radial and tangential distortion of a model of COLMAP with these parameters; None if it has others."""
    none = (0.0, 0.0)
    if model in ("SIMPLE_PINHOLE", "PINHOLE"):
        return (0.0, 0.0, 0.0, 0.0), none
    if model in ("SIMPLE_RADIAL", "SIMPLE_RADIAL_FISHEYE"):
        return (extra[0], 0.0, 0.0, 0.0), none
    if model in ("RADIAL", "RADIAL_FISHEYE"):
        return (extra[0], extra[1], 0.0, 0.0), none
    if model == "OPENCV":
        return (extra[0], extra[1], 0.0, 0.0), (extra[2], extra[3])
    if model == "OPENCV_FISHEYE":
        return (extra[0], extra[1], extra[2], extra[3]), none
    if model == "FULL_OPENCV" and not any(extra[5:]):
        return (extra[0], extra[1], extra[4], 0.0), (extra[2], extra[3])
    return None, none
