"""A COLMAP database of images with known cameras, and the model of their poses without points.

COLMAP triangulates a model from a database that has the same cameras, rigs and frames. Each image gets a frame of its
own, so that the pose of each stays fixed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lgbatch.colmap.sensors.rows import add_camera, add_image
from lgbatch.colmap.sqlite import open_database
from lgbatch.types import IntArray, Pair

if TYPE_CHECKING:
    import pycolmap

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PosedImage:
    """An image with its camera."""

    camera: int
    """Key of its camera; images with the same key share it."""
    keypoints: Array
    """(N, 2) in COLMAP's pixels: the centre of the top-left one is (0.5, 0.5)."""


@dataclass(frozen=True)
class MatchedPair:
    """The matches of two images, (K, 2) indices of keypoints, and their geometry if they are verified."""

    pair: Pair
    indices: IntArray
    geometry: "pycolmap.TwoViewGeometry | None" = None


def write_posed_database(
    path: Path,
    cameras: "Mapping[int, pycolmap.Camera]",
    images: Mapping[str, PosedImage],
    pairs: Iterable[MatchedPair],
) -> None:
    """Write a new database. Images and cameras get ids from 1 in their order."""
    with open_database(path, shared=False) as db:
        used = dict.fromkeys(image.camera for image in images.values())
        camera_ids = {key: add_camera(db, cameras[key]) for key in used}
        for name, image in images.items():
            add_image(db, name, camera_ids[image.camera], None, None)
        ids = {image.name: image.image_id for image in db.read_all_images()}
        for name, image in images.items():
            db.write_keypoints(ids[name], np.ascontiguousarray(image.keypoints, np.float32))
        for matched in pairs:
            a, b = ids[matched.pair.a], ids[matched.pair.b]
            db.write_matches(a, b, matched.indices.astype(np.uint32))
            if matched.geometry is not None:
                db.write_two_view_geometry(a, b, matched.geometry)


def posed_model(database: Path, poses: Mapping[str, Array]) -> "pycolmap.Reconstruction":
    """Return a model without points of the images of such a database; `poses` are camera_from_world (3, 4) by name."""
    import pycolmap

    model = pycolmap.Reconstruction()
    with open_database(database, shared=False) as db:
        names = {image.image_id: image.name for image in db.read_all_images()}
        for camera in db.read_all_cameras():
            model.add_camera(camera)
        for rig in db.read_all_rigs():
            model.add_rig(rig)
        for frame in db.read_all_frames():
            (data,) = frame.image_ids
            frame.rig_from_world = pycolmap.Rigid3d(np.asarray(poses[names[data.id]], np.float64))
            model.add_frame(frame)
        for image in db.read_all_images():
            xy = db.read_keypoints(image.image_id)[:, :2]
            image.points2D = pycolmap.Point2DList([pycolmap.Point2D(point) for point in xy.astype(np.float64)])
            model.add_image(image)
    return model


def add_points(model: "pycolmap.Reconstruction", other: "pycolmap.Reconstruction") -> None:
    """Add the points of another model, whose images have the same names and keypoints. Their ids stay."""
    import pycolmap

    ids = {image.name: image.image_id for image in model.images.values()}
    of_other = {image_id: ids[image.name] for image_id, image in other.images.items() if image.name in ids}
    for point_id, point in other.points3D.items():
        track = pycolmap.Track()
        for element in point.track.elements:
            track.add_element(of_other[element.image_id], element.point2D_idx)
        model.add_point3D_with_id(point_id, pycolmap.Point3D(xyz=point.xyz, color=point.color, track=track))
