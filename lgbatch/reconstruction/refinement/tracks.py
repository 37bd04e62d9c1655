"""The observations of a model as arrays, the reference view of each point, and maps of patches to other views."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lgbatch.types import BoolArray, LongArray

if TYPE_CHECKING:
    import pycolmap

Array = NDArray[np.float64]
_STEP = 4.0  # pixels between the rays by which the map of a patch is estimated


@dataclass(frozen=True, eq=False)
class Tracks:
    """The observations of a model, sorted by image. O observations of P points in I images."""

    images: LongArray
    """(I,) image ids, ascending."""
    points: LongArray
    """(P,) point ids, ascending."""
    image: LongArray
    """(O,) row of `images`."""
    point: LongArray
    """(O,) row of `points`."""
    feature: LongArray
    """(O,) index of the observation in its image's points2D."""

    @classmethod
    def of(cls, model: "pycolmap.Reconstruction") -> "Tracks":
        """Return the observations of the registered images."""
        images = np.array(sorted(model.reg_image_ids()), np.int64)
        points = np.array(sorted(model.points3D), np.int64)
        rows = [
            (row, index, feature.point3D_id)
            for row, image_id in enumerate(images.tolist())
            for index, feature in enumerate(model.images[image_id].points2D)
            if feature.has_point3D()
        ]
        image, feature, point = np.array(rows, np.int64).reshape(-1, 3).T
        return cls(images, points, image, np.searchsorted(points, point), feature)

    def by_image(self) -> Iterator[tuple[int, slice]]:
        """Yield the id of each image with the range of its observations."""
        bounds = np.searchsorted(self.image, np.arange(len(self.images) + 1))
        for row, image_id in enumerate(self.images.tolist()):
            yield image_id, slice(int(bounds[row]), int(bounds[row + 1]))

    def of_points(self, chosen: BoolArray) -> "Tracks":
        """Return the observations of the points that are `chosen`, (P,)."""
        rows = chosen[self.point]
        point = (np.cumsum(chosen) - 1)[self.point[rows]]
        return Tracks(self.images, self.points[chosen], self.image[rows], point, self.feature[rows])

    def lengths(self, counted: BoolArray | None = None) -> LongArray:
        """Return the number of observations of each point, (P,), or of those that are `counted`, (O,)."""
        return np.bincount(self.point if counted is None else self.point[counted], minlength=len(self.points))

    def positions(self, model: "pycolmap.Reconstruction") -> Array:
        """Return the positions of the observations, (O, 2), in COLMAP's pixels: top-left pixel centre (0.5, 0.5)."""
        positions = np.empty((len(self.image), 2))
        for image_id, rows in self.by_image():
            features = model.images[image_id].points2D
            for row, index in zip(range(rows.start, rows.stop), self.feature[rows].tolist(), strict=True):
                positions[row] = features[index].xy
        return positions

    def apply(self, model: "pycolmap.Reconstruction", positions: Array, kept: BoolArray) -> None:
        """Give the observations their `positions` (O, 2) in the model, which has exactly those that are `kept` (O,)."""
        import pycolmap

        for image_id, rows in self.by_image():
            image = model.images[image_id]
            for row, index in zip(range(rows.start, rows.stop), self.feature[rows].tolist(), strict=True):
                feature = image.points2D[index]
                feature.xy = positions[row]
                if kept[row] and not feature.has_point3D():
                    element = pycolmap.TrackElement(image_id, index)
                    model.add_observation(int(self.points[self.point[row]]), element)
                elif feature.has_point3D() and not kept[row]:
                    model.delete_observation(image_id, index)

    def xyz(self, model: "pycolmap.Reconstruction") -> Array:
        """Return the world positions of the points, (P, 3)."""
        return np.array([model.points3D[point].xyz for point in self.points.tolist()]).reshape(-1, 3)

    def project(self, model: "pycolmap.Reconstruction", xyz: Array) -> Array:
        """Project a world point (O, 3) for each observation into its image: (O, 2) pixels, NaN behind the camera."""
        projected = np.empty((len(xyz), 2))
        for image_id, rows in self.by_image():
            image = model.images[image_id]
            pose = np.asarray(image.cam_from_world().matrix())
            projected[rows] = model.cameras[image.camera_id].img_from_cam(xyz[rows] @ pose[:, :3].T + pose[:, 3])
        return projected


def choose_references(model: "pycolmap.Reconstruction", tracks: Tracks) -> LongArray:
    """Return the row (P,) of the observation of each point whose view is nearest to the mean direction of its views."""
    views = _views(model, tracks)
    mean = np.stack([np.bincount(tracks.point, axis, minlength=len(tracks.points)) for axis in views.T], axis=1)
    order = np.lexsort([-(views * mean[tracks.point]).sum(axis=1), tracks.point])
    chosen: LongArray = order[np.searchsorted(tracks.point[order], np.arange(len(tracks.points)))]
    return chosen


def reference_patches(
    model: "pycolmap.Reconstruction", tracks: Tracks, positions: Array, references: LongArray
) -> Array:
    """Return three world positions of the patch of each point, (P, 3, 3), given the rows of its `references` (P,).

    They are those of the reference observation, of the pixel right of it, and of that below, on the plane through the
    point that faces the reference camera.
    """
    patch, xyz, normals = np.full((len(references), 3, 3), np.nan), tracks.xyz(model), _views(model, tracks)
    is_reference = np.zeros(len(tracks.image), bool)
    is_reference[references] = True
    for image_id, rows in tracks.by_image():
        chosen = rows.start + np.flatnonzero(is_reference[rows])
        image, point, normal = model.images[image_id], tracks.point[chosen], normals[chosen]
        pixels = positions[chosen, None] + np.array([[0, 0], [_STEP, 0], [0, _STEP]])
        rays = model.cameras[image.camera_id].cam_from_img(pixels.reshape(-1, 2)).reshape(-1, 3, 2)
        rays = np.concatenate([rays, np.ones((len(rays), 3, 1))], axis=2)
        rays = rays @ np.asarray(image.cam_from_world().matrix())[:, :3]
        centre = image.projection_center()
        distance = ((xyz[point] - centre) * normal).sum(axis=1)[:, None] / np.einsum("nij,nj->ni", rays, normal)
        patch[point] = centre + distance[..., None] * rays
    patch[:, 1:] = patch[:, :1] + (patch[:, 1:] - patch[:, :1]) / _STEP
    return patch


def patch_maps(model: "pycolmap.Reconstruction", tracks: Tracks, patches: Array) -> Array:
    """Return the linear maps (O, 2, 2) of small offsets in the reference view to each observation's view.

    `patches` are those of `reference_patches`. NaN where the patch is behind a camera.
    """
    patch = patches[tracks.point]
    origin = tracks.project(model, patch[:, 0])
    axes = [tracks.project(model, patch[:, 0] + _STEP * (patch[:, i] - patch[:, 0])) - origin for i in (1, 2)]
    return np.stack(axes, axis=2) / _STEP


def _views(model: "pycolmap.Reconstruction", tracks: Tracks) -> Array:
    """The directions (O, 3) from each point to the camera of the observation."""
    centres = np.array([model.images[i].projection_center() for i in tracks.images.tolist()])
    views = centres[tracks.image] - tracks.xyz(model)[tracks.point]
    directions: Array = views / np.linalg.norm(views, axis=1, keepdims=True)
    return directions
