"""The registered photos of a model: their features, the points that these observe, and their cameras."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lgbatch.colmap.sensors.exif import Exif, read_exif
from lgbatch.colmap.sensors.rows import new_camera
from lgbatch.errors import InputError
from lgbatch.pairing.evidence.vocabulary import read_descriptors, read_vocabulary
from lgbatch.pairing.evidence.votes import BEST, BestDescriptors
from lgbatch.pairing.nearest_descriptors import mutual_nearest
from lgbatch.pairing.retrieval import vlad
from lgbatch.storage.features import FeatureStore
from lgbatch.types import Features, FloatArray, LongArray

if TYPE_CHECKING:
    import pycolmap

_ALL = 40
"""Up to so many registered photos, a photo is matched with all, as pairs of --pairing auto are."""
_SHORTLIST = 50
_MOST_MOVED = 20.0
"""Pixels by which refinement moves few observations, if any."""
Array = NDArray[np.float64]
CameraKey = tuple[str | None, tuple[int, int]]
"""What EXIF says of a camera, and the size (width, height) of its photos."""


@dataclass(frozen=True)
class Reference:
    """A registered photo."""

    name: str
    points: LongArray
    """(N,) ids of the 3D points that its keypoints observe; -1 for none."""


class References:
    """The registered photos of a model."""

    def __init__(self, model: "pycolmap.Reconstruction", features: FeatureStore, photos: Path | None) -> None:
        """`photos` is their folder, if it is there. Raises InputError if the features are not those of the model."""
        self.model, self.features = model, features
        posed = sorted((image for image in model.images.values() if image.has_pose), key=lambda image: image.name)
        self.images = [Reference(image.name, _points(image, features)) for image in posed]
        if not any((reference.points >= 0).any() for reference in self.images):
            raise InputError("the model has no points that features.h5 belongs to: run `lgbatch run` first")
        self._cameras = _cameras_by_key(posed, photos)
        self._similar = _Similar([r.name for r in self.images], features) if len(self.images) > _ALL else None

    def candidates(self, query: Features, count: int) -> Sequence[Reference]:
        """The photos to match with a query: all, or the `count` that look most alike."""
        if self._similar is None:
            return self.images
        return [self.images[row] for row in self._similar.most(query.descriptors, count)]

    def camera(self, exif: Exif, size: tuple[int, int]) -> tuple["pycolmap.Camera", bool]:
        """The camera of a photo of `size` (width, height), and whether it is one of the model."""
        import pycolmap

        same = self._cameras.get((exif.camera, size))
        if same is not None:
            return pycolmap.Camera(same.todict()), True
        return new_camera("SIMPLE_RADIAL", size, exif.focal), False


class _Similar:
    """Retrieval among many photos, as pairing/evidence/looks.py does it, for one photo at a time."""

    def __init__(self, names: Sequence[str], features: FeatureStore) -> None:
        self._words = read_vocabulary(names, features, None)
        self._vectors = np.zeros((len(names), self._words.size), np.float16)
        self._best = BestDescriptors(len(names))
        for row, name in enumerate(names):
            descriptors = read_descriptors(name, features)
            if descriptors is not None and descriptors.shape[1] == self._words.shape[1]:
                self._vectors[row] = vlad(descriptors, self._words)
                self._best.add(row, descriptors)

    def most(self, descriptors: FloatArray, count: int) -> list[int]:
        """Rows of the `count` most similar photos: the most votes of descriptors among the most similar vectors."""
        similarity = self._vectors.astype(np.float32) @ vlad(descriptors, self._words)
        rows = np.argsort(-similarity, kind="stable")[: max(_SHORTLIST, count)].tolist()
        best = descriptors[:BEST]
        score = {row: len(mutual_nearest(best, self._best.read(row))[0]) + similarity[row] / 4 for row in rows}
        return sorted(rows, key=lambda row: -score[row])[:count]


def _points(image: "pycolmap.Image", features: FeatureStore) -> LongArray:
    """The points that the keypoints of features.h5 observe. Those of a second try follow them in the model."""
    if image.name not in features:
        return np.zeros(0, np.int64)
    keypoints = features.keypoints(image.name) + np.float32(0.5)
    observed = [i for i in image.get_observation_point2D_idxs() if i < len(keypoints)]
    xy = np.array([image.point2D(i).xy for i in observed]).reshape(-1, 2)
    if len(observed) and np.median(np.abs(xy - keypoints[observed])) > _MOST_MOVED:
        raise InputError(f"{features.path} has other keypoints of {image.name} than the model: run `lgbatch run` again")
    points = np.full(len(keypoints), -1, np.int64)
    points[observed] = [image.point2D(i).point3D_id for i in observed]
    return points


def _cameras_by_key(images: Sequence["pycolmap.Image"], photos: Path | None) -> "Mapping[CameraKey, pycolmap.Camera]":
    """The cameras of the model that only one has of its EXIF and size."""
    first = {image.camera_id: image for image in reversed(images)}
    exifs = read_exif([photos / image.name for image in first.values()]) if photos else [Exif()] * len(first)
    found: dict[CameraKey, list[pycolmap.Camera]] = {}
    for image, exif in zip(first.values(), exifs, strict=True):
        camera = image.camera
        if camera is not None:
            found.setdefault((exif.camera, (camera.width, camera.height)), []).append(camera)
    return {key: cameras[0] for key, cameras in found.items() if len(cameras) == 1 and _is_shared(images, cameras[0])}


def _is_shared(images: Sequence["pycolmap.Image"], camera: "pycolmap.Camera") -> bool:
    """Whether several images have the camera: one image alone says little about others of its size."""
    return sum(image.camera_id == camera.camera_id for image in images) > 1
