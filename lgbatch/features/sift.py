"""SIFT (Lowe, IJCV 2004) by OpenCV, as LightGlue was trained to match it: no network, and so no model to open.

The settings are those of LightGlue's own SIFT, and so are RootSIFT's descriptors (Arandjelovic and Zisserman, CVPR
2012) and the rule that of keypoints in one pixel, which mostly differ in their orientation alone, one stays. OpenCV's
keypoints are a quarter of a pixel off unless its scale pyramid is asked to be precise (measured), which it is here.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from lgbatch.config import Settings
from lgbatch.photos.resize import to_original
from lgbatch.runtime.environment import available_cores
from lgbatch.storage.provenance import Provenance
from lgbatch.types import ByteArray, Features, FloatArray, Photo

LAYERS = 4
"""Of an octave."""
CONTRAST = 0.0066667
"""Least contrast of a keypoint, COLMAP's; OpenCV divides it by LAYERS."""
EDGE, SIGMA = 10, 1.6
SPARE = 2
"""Times as many keypoints as wanted are described, for about a fifth of them share their pixel with a better one."""
DIM = 128
TINY = 1e-6


class SiftExtractor:
    """Photos in, features out."""

    batch = 1

    def __init__(self, settings: Settings) -> None:
        """Take `max_keypoints`, `resize` and `threads` of the settings."""
        cv2.setNumThreads(settings.threads or available_cores())
        self._most = settings.max_keypoints
        self._sift = cv2.SIFT.create(SPARE * self._most, LAYERS, CONTRAST, EDGE, SIGMA, enable_precise_upscale=True)
        self.provenance: Provenance = {
            "extractor": settings.extractor,
            "max_keypoints": settings.max_keypoints,
            "resize": settings.resize,
        }

    def extract(self, photos: Sequence[Photo]) -> list[Features]:
        """Features with scales and orientations, keypoints in pixels of the original images."""
        return [self._features(photo) for photo in photos]

    def _features(self, photo: Photo) -> Features:
        found, described = self._sift.detectAndCompute(_grey(photo.pixels), None)
        values = [(*keypoint.pt, keypoint.response, keypoint.size, keypoint.angle) for keypoint in found]
        table = np.array(values, np.float32).reshape(-1, 5)
        points, scores, scales, oris = table[:, :2], table[:, 2], table[:, 3], np.deg2rad(table[:, 4])
        rows = best_of_each_pixel(points, scores, oris)[: self._most]
        descriptors = np.zeros((0, DIM), np.float32) if described is None else np.asarray(described, np.float32)
        keypoints = to_original(points[rows], photo.pixels.shape, photo.size)
        return Features(keypoints, scores[rows], rootsift(descriptors[rows]), photo.size, scales[rows], oris[rows])


def best_of_each_pixel(points: FloatArray, scores: FloatArray, oris: FloatArray) -> NDArray[np.intp]:
    """Rows of the keypoints (N, 2) that stay, best first: in each pixel the best score, or then the least angle."""
    cells = np.rint(points - np.float32(0.5))
    order = np.lexsort((oris, -scores, cells[:, 0], cells[:, 1]))
    changes = (np.diff(cells[order], axis=0) != 0).any(1)
    rows = order[np.concatenate([np.ones(min(len(order), 1), bool), changes])]
    best: NDArray[np.intp] = rows[np.argsort(-scores[rows], kind="stable")]
    return best


def rootsift(descriptors: FloatArray) -> FloatArray:
    """Square roots of the shares that the 128 numbers of a descriptor (N, 128) have in their sum, of unit length."""
    shares = descriptors / np.maximum(descriptors.sum(1, keepdims=True), TINY)
    roots = np.sqrt(np.maximum(shares, TINY))
    unit: FloatArray = (roots / np.linalg.norm(roots, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _grey(pixels: ByteArray) -> ByteArray:
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY), np.uint8)
