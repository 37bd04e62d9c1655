"""Ground-truth cameras."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lgbatch.colmap.sensors.calibration import KnownCamera as Intrinsics

Array = NDArray[np.float64]


class Known(Protocol):
    """A camera with ground truth."""

    @property
    def camera_from_world(self) -> Array:
        """(3, 4), rotation and translation. The camera looks along +z, with x to the right and y down."""

    @property
    def intrinsics(self) -> Intrinsics | None:
        """None if the ground truth has none."""


@dataclass(frozen=True, eq=False)
class KnownPose:
    """Ground-truth pose, and intrinsics in a camera model of COLMAP if they are known."""

    camera_from_world: Array
    intrinsics: Intrinsics | None = None


@dataclass(frozen=True, eq=False)
class KnownCamera:
    """Ground-truth pose and calibration of a pinhole camera, in the world units of the ground truth."""

    camera_from_world: Array
    """(3, 4) float64, rotation and translation. The camera looks along +z, with x to the right and y down."""
    calibration: Array
    """(3, 3) float64, focal lengths and principal point in pixels, top-left pixel centre (0, 0)."""
    size: tuple[int, int]
    """(width, height) in pixels."""

    @property
    def intrinsics(self) -> Intrinsics:
        """The same camera for COLMAP, whose top-left pixel has its centre at (0.5, 0.5)."""
        k = self.calibration
        params = (float(k[0, 0]), float(k[1, 1]), float(k[0, 2]) + 0.5, float(k[1, 2]) + 0.5)
        return Intrinsics("PINHOLE", params, self.size)

    def project(self, points: Array) -> Array:
        """Project world points (N, 3) in front of the camera to pixels (N, 2), top-left pixel centre (0, 0)."""
        rotation, translation = self.camera_from_world[:, :3], self.camera_from_world[:, 3]
        rays = (points @ rotation.T + translation) @ self.calibration.T
        return rays[:, :2] / rays[:, 2:]


@dataclass(frozen=True, eq=False)
class Truth:
    """The ground truth of a data set."""

    kind: str
    """The format, in words."""
    cameras: Mapping[str, Known]
    """By image name, which may lack folders and extension, or by timestamp."""
    skipped: int = 0
    """Entries without a pose: infinite or not a number."""
    times: Mapping[str, float] | None = None
    """Of a trajectory: the timestamps of the cameras, which have no image names."""


def camera_from_matrix(world_from_camera: Array) -> Array | None:
    """Convert a pose (4, 4) or (3, 4) to camera_from_world (3, 4), with the nearest rotation matrix.

    Text files have few digits. Returns None if the matrix has no rotation.
    """
    rotation, centre = world_from_camera[:3, :3], world_from_camera[:3, 3]
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3) or np.linalg.det(rotation) < 0:
        return None
    u, _, vt = np.linalg.svd(rotation.T)
    nearest = u @ vt
    return np.column_stack([nearest, -nearest @ centre])
