"""The files of a localization: the poses, a model of the photos, and the whole model with the photos in it."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from lgbatch.colmap.log import colmap_log_off
from lgbatch.errors import ReconstructionError
from lgbatch.pipelines.localization.results import Localization, Localized
from lgbatch.reconstruction.known_poses.posed_database import MatchedPair, PosedImage, write_posed_database
from lgbatch.reconstruction.progress import run_timed
from lgbatch.reconstruction.results import Model
from lgbatch.reconstruction.subprocess_worker import Message
from lgbatch.storage.durable import replace_synced
from lgbatch.types import Pair, escape

if TYPE_CHECKING:
    import pycolmap

_WORKER = "lgbatch.reconstruction.known_poses.worker"
_DATABASE = "database.db"


def write_poses(result: Localization, model: "pycolmap.Reconstruction") -> None:
    """Write poses.json, poses.txt as hloc does, and the model queries/. Raises ReconstructionError if it cannot."""
    import pycolmap

    placed = [photo for photo in result.photos if photo.pose is not None]
    lines = []
    for photo in placed:
        pose = pycolmap.Rigid3d(np.asarray(photo.pose))
        x, y, z, w = pose.rotation.quat
        lines.append(" ".join([photo.name, *map(repr, map(float, (w, x, y, z, *pose.translation)))]))
    try:
        folder = result.folder / "queries"
        folder.mkdir(parents=True, exist_ok=True)
        _model_of(placed, model).write(folder)
        replace_synced(result.folder / "poses.txt", "".join(f"{line}\n" for line in lines).encode())
        replace_synced(result.folder / "poses.json", json.dumps(result.as_dict(), indent=1).encode() + b"\n")
    except OSError as error:
        raise ReconstructionError(f"cannot write {result.folder}: {error}") from error


def _model_of(photos: list[Localized], model: "pycolmap.Reconstruction") -> "pycolmap.Reconstruction":
    """A model of the photos and of the points that they show."""
    import pycolmap

    own = pycolmap.Reconstruction()
    tracks: dict[int, pycolmap.Track] = {}
    for image_id, photo in enumerate(photos, 1):
        camera = pycolmap.Camera(photo.camera.todict() | {"camera_id": image_id})
        own.add_camera_with_trivial_rig(camera)
        points = pycolmap.Point2DList([pycolmap.Point2D(xy) for xy in photo.keypoints])
        image = pycolmap.Image(name=photo.name, points2D=points, camera_id=image_id, image_id=image_id)
        own.add_image_with_trivial_frame(image, pycolmap.Rigid3d(np.asarray(photo.pose)))
        seen: set[int] = set()
        for keypoint, point in photo.inliers.items():
            if point not in seen:
                seen.add(point)
                tracks.setdefault(point, pycolmap.Track()).add_element(image_id, keypoint)
    for point, track in tracks.items():
        known = model.point3D(point)
        own.add_point3D_with_id(point, pycolmap.Point3D(xyz=known.xyz, color=known.color, track=track))
    own.update_point_3d_errors()
    return own


def add_to_model(result: Localization, model: "pycolmap.Reconstruction", base: Path, photos: Path) -> Model:
    """Write added/: the model in `base` with the photos, whose folder is `photos`, and new points that they show.

    Poses are fixed, in a child process. Images get new ids, and each a frame of its own. Raises ReconstructionError.
    """
    placed = [photo for photo in result.photos if photo.pose is not None]
    cameras = dict(model.cameras.items())
    images, poses = {}, {}
    for image in sorted((image for image in model.images.values() if image.has_pose), key=lambda image: image.image_id):
        xy = np.array([point.xy for point in image.points2D]).reshape(-1, 2)
        images[image.name] = PosedImage(image.camera_id, xy)
        poses[image.name] = image.cam_from_world().matrix().tolist()
    for photo in placed:
        key = photo.camera.camera_id
        if not photo.is_known:
            key = max(cameras) + 1
            cameras[key] = photo.camera
        images[photo.name] = PosedImage(key, photo.keypoints)
        poses[photo.name] = photo.pose.tolist() if photo.pose is not None else []
    pairs = [
        MatchedPair(Pair(photo.name, name), matches.indices)
        for photo in placed
        for name, matches in photo.matches.items()
        if len(matches.indices)
    ]
    out = result.folder / "added"
    try:
        out.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory() as folder, colmap_log_off():
            write_posed_database(Path(folder, _DATABASE), cameras, images, pairs)
            request: Message = {
                "database": str(Path(folder, _DATABASE)),
                "poses": poses,
                "points": str(base),
                "images": str(photos),
                "out": str(out),
                "refine": False,
            }
            return Model(**run_timed(_WORKER, request, "add", shown=True)["model"])
    except (OSError, RuntimeError, ValueError) as error:
        reason = escape(str(error).partition("\n")[0])
        raise ReconstructionError(f"cannot add the photos to the model: {reason}; leave out --add") from error
