"""Ground control points: positions that were surveyed, and the pixels that show them.

The file is OpenDroneMap's gcp_list.txt: the first line is the coordinate reference system, the others are

    x y z column row image [name]

with longitude as x and latitude as y in systems of degrees. Lines with equal coordinates are of one point. The centre
of the first pixel is (0, 0), as OpenDroneMap reads it (normalized_image_coordinates in OpenSfM's features.py).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lgbatch.errors import InputError
from lgbatch.reconstruction.evaluation.names import match_names
from lgbatch.reconstruction.georeference.crs import Array, to_degrees

if TYPE_CHECKING:
    import pycolmap

_EXPECTED = "expected x y z column row image [name], separated by spaces or tabs"
_MIN_ANGLE = np.radians(1.0)
"""Between the rays of a point, at its least."""
_MAX_ERROR = np.radians(1.0)
"""Of a ray, for the point to use it: a wrong pixel is left out."""


@dataclass
class ControlPoint:
    """A point on the ground."""

    name: str
    xyz: tuple[float, float, float]
    pixels: list[tuple[str, tuple[float, float]]] = field(default_factory=list)
    """Image names as in the file, and (x, y) in COLMAP's pixels of the photo as stored: the centre of the top-left one
    is (0.5, 0.5)."""


@dataclass(frozen=True)
class ControlPoints:
    """The content of a file of ground control points."""

    path: Path
    points: Sequence[ControlPoint]
    degrees: Array
    """(N, 3), latitude and longitude in degrees, altitude in metres."""

    @property
    def images(self) -> list[str]:
        """Names of the images that show points, each once."""
        return list(dict.fromkeys(name for point in self.points for name, _ in point.pixels))

    def are_in(self, model: "pycolmap.Reconstruction") -> bool:
        """Whether the model has one of the images."""
        return bool(_images_of(self, model))

    def triangulate(self, model: "pycolmap.Reconstruction") -> "list[Triangulated | None]":
        """Triangulate the points from their pixels; None for those that fewer than two images of the model show."""
        image_of = _images_of(self, model)
        return [_triangulate(point, image_of) for point in self.points]


@dataclass(frozen=True)
class Triangulated:
    """A control point in a model."""

    xyz: Array
    """(3,), in the frame of the model."""
    images: int
    """Images whose pixels it was triangulated from."""
    error: float
    """Mean reprojection error in these, in pixels."""


def read_control_points(path: Path) -> ControlPoints:
    """Read a file. Raises InputError if it is none, or if its reference system is unknown or needs pyproj."""
    try:
        lines = enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"cannot read control points from {path}: {reason}; give a gcp_list.txt") from None
    rows = [(number, line.strip()) for number, line in lines if line.strip() and not line.lstrip().startswith("#")]
    if rows and re.match(r"([-+.\de]+\s+){5}\S", rows[0][1]):
        raise InputError(f"{path} lacks the reference system: write it as first line, such as EPSG:32633")
    points: dict[tuple[float, ...], ControlPoint] = {}
    for number, line in rows[1:]:
        words = line.split("\t") if "\t" in line else line.split(maxsplit=6)
        try:
            x, y, z, column, row = map(float, words[:5])
            image = words[5].strip()
        except (ValueError, IndexError):
            raise InputError(f"{path}, line {number}: {_EXPECTED}, after a first line such as EPSG:32633") from None
        if not np.isfinite([x, y, z, column, row]).all():
            raise InputError(f"{path}, line {number}: {_EXPECTED}, not numbers that are infinite or NaN")
        name = words[6].strip() if len(words) > 6 else f"point {len(points) + 1}"
        points.setdefault((x, y, z), ControlPoint(name, (x, y, z))).pixels.append((image, (column + 0.5, row + 0.5)))
    if not points:
        raise InputError(f"{path} has no control points: {_EXPECTED}, after a first line such as EPSG:32633")
    degrees = to_degrees(rows[0][1])(np.array([point.xyz for point in points.values()]))
    if not np.isfinite(degrees).all() or (np.abs(degrees[:, 0]) > 90).any():
        raise InputError(f"{path}: the points are outside of '{rows[0][1]}': check its first line and the order x y z")
    return ControlPoints(path, list(points.values()), degrees)


def _images_of(points: ControlPoints, model: "pycolmap.Reconstruction") -> "dict[str, pycolmap.Image]":
    """The registered images of a model, by their names in the file."""
    images = {image.name: image for image in model.images.values() if image.has_pose}
    return {name: images[image] for image, name in match_names(points.images, list(images)).camera_of.items()}


def _triangulate(point: ControlPoint, image_of: "dict[str, pycolmap.Image]") -> Triangulated | None:
    import pycolmap

    seen = [(image_of[name], pixel) for name, pixel in point.pixels if name in image_of]
    if len(seen) < 2:
        return None
    pixels, views = np.array([pixel for _, pixel in seen]), [image for image, _ in seen]
    options = pycolmap.EstimateTriangulationOptions(min_tri_angle=_MIN_ANGLE)
    options.ransac.max_error, options.ransac.random_seed = _MAX_ERROR, 0
    cameras = [view.camera for view in views if view.camera]
    found = pycolmap.estimate_triangulation(pixels, [view.cam_from_world() for view in views], cameras, options)
    if found is None or np.sum(found["inliers"]) < 2:
        return None
    used = np.flatnonzero(found["inliers"]).tolist()
    projected = [views[i].project_point(found["xyz"]) for i in used]
    errors = [np.linalg.norm(p - pixels[i]) for p, i in zip(projected, used, strict=True) if p is not None]
    return Triangulated(np.asarray(found["xyz"]), len(used), float(np.mean(errors)) if errors else np.inf)
