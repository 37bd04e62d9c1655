"""SIFT features (Lowe, IJCV 2004) by OpenCV, as LightGlue was trained to match them. There is no model to open.

Settings are those of LightGlue's SIFT, as are RootSIFT descriptors (Arandjelovic and Zisserman, CVPR 2012) and the rule
that of several keypoints in one pixel, which mostly differ in orientation only, one is kept. OpenCV's keypoints are a
quarter of a pixel off (measured), unless enable_precise_upscale is set, as it is here.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from lgbatch.config import Settings
from lgbatch.features.memory import MemoryCheck
from lgbatch.photos.masks import drop_masked, keypoints_to_detect
from lgbatch.photos.resize import to_original
from lgbatch.runtime.environment import available_cores
from lgbatch.storage.provenance import Provenance
from lgbatch.types import ByteArray, Features, FloatArray, Photo

OCTAVE_LAYERS = 4
"""Layers per octave of the scale pyramid."""
CONTRAST_THRESHOLD = 0.0066667
"""Least contrast of a keypoint, as in COLMAP. OpenCV divides it by OCTAVE_LAYERS."""
EDGE_THRESHOLD, SIGMA = 10, 1.6
OVERSAMPLING = 2
"""Detect this many times max_keypoints: about a fifth share their pixel with a better keypoint and are dropped."""
DESCRIPTOR_DIM = 128
EPSILON = 1e-6


class SiftExtractor:
    """Extracts SIFT features, one photo after the other."""

    batch = 1

    def __init__(self, settings: Settings) -> None:
        """Use `max_keypoints`, `resize` and `threads` of the settings. Sets the number of OpenCV's threads."""
        cv2.setNumThreads(settings.threads or available_cores())
        self._max_keypoints = settings.max_keypoints
        self._memory = MemoryCheck(settings.extractor)
        self._sift = cv2.SIFT.create(
            OVERSAMPLING * self._max_keypoints,
            OCTAVE_LAYERS,
            CONTRAST_THRESHOLD,
            EDGE_THRESHOLD,
            SIGMA,
            enable_precise_upscale=True,
        )
        self.provenance: Provenance = {
            "extractor": settings.extractor,
            "max_keypoints": settings.max_keypoints,
            "resize": settings.resize,
        }

    def extract(self, photos: Sequence[Photo]) -> list[Features]:
        """Extract up to settings.max_keypoints keypoints of each photo, with scales and orientations.

        Keypoints are in pixels of the original images, top-left pixel centre (0, 0). Those that a mask hides are left
        out; to make up for them, more are detected. Raises ItemError if a photo is too large for the memory.
        """
        return [self._extract(photo) for photo in photos]

    def _extract(self, photo: Photo) -> Features:
        self._memory.check(photo.pixels.shape[1], photo.pixels.shape[0])
        self._sift.setNFeatures(OVERSAMPLING * keypoints_to_detect(self._max_keypoints, photo.masks))
        detected, described = self._sift.detectAndCompute(_gray(photo.pixels), None)
        values = [(*keypoint.pt, keypoint.response, keypoint.size, keypoint.angle) for keypoint in detected]
        table = np.array(values, np.float32).reshape(-1, 5)
        points, scores, scales, oris = table[:, :2], table[:, 2], table[:, 3], np.deg2rad(table[:, 4])
        rows = best_per_pixel(points, scores, oris)
        descriptors = np.zeros((0, DESCRIPTOR_DIM), np.float32)
        if described is not None:
            descriptors = np.asarray(described, np.float32)
        keypoints = to_original(points[rows], photo.pixels.shape, photo.size)
        features = Features(keypoints, scores[rows], rootsift(descriptors[rows]), photo.size, scales[rows], oris[rows])
        return drop_masked(features, photo.masks, self._max_keypoints)


def best_per_pixel(points: FloatArray, scores: FloatArray, oris: FloatArray) -> NDArray[np.intp]:
    """Rows of the keypoints (N, 2) to keep, best first: the best score of each pixel, then the smallest orientation."""
    pixels = np.rint(points - np.float32(0.5))
    order = np.lexsort((oris, -scores, pixels[:, 0], pixels[:, 1]))
    changes = (np.diff(pixels[order], axis=0) != 0).any(1)
    rows = order[np.concatenate([np.ones(min(len(order), 1), bool), changes])]
    best: NDArray[np.intp] = rows[np.argsort(-scores[rows], kind="stable")]
    return best


def rootsift(descriptors: FloatArray) -> FloatArray:
    """RootSIFT: L1-normalize SIFT descriptors (N, 128), take square roots, and L2-normalize."""
    l1 = descriptors / np.maximum(descriptors.sum(1, keepdims=True), EPSILON)
    roots = np.sqrt(np.maximum(l1, EPSILON))
    unit: FloatArray = (roots / np.linalg.norm(roots, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _gray(pixels: ByteArray) -> ByteArray:
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY), np.uint8)
