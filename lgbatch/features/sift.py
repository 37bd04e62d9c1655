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
from lgbatch.features.memory import MemoryBudget
from lgbatch.photos.coordinates import angles_to_original, to_original
from lgbatch.photos.masks import drop_masked, keypoints_to_detect
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
    """Extracts SIFT features. Thread-safe."""

    batch = 1

    def __init__(self, settings: Settings, at_once: int = 1, *, largest: bool = False) -> None:
        """Use `max_keypoints`, `resize` and `threads` of the settings. Sets the number of OpenCV's threads.

        `at_once` calls of `extract` may run at once. OpenCV's threads help those that find them idle.

        Keeps the keypoints of the highest contrast or, if so asked, the `largest`, as COLMAP does: in weak texture the
        small ones are mostly noise. Measured on fields from the air, mutual nearest neighbours find 1.6 to 5 times as
        many matches with them. Their diameters are the scores, then.
        """
        cv2.setNumThreads(settings.threads or available_cores())
        self._max_keypoints, self._largest, self.at_once = settings.max_keypoints, largest, at_once
        self._memory = MemoryBudget(settings.extractor)
        self.provenance: Provenance = {
            "extractor": settings.extractor,
            "max_keypoints": settings.max_keypoints,
            "resize": settings.resize,
        } | ({"keep": "largest"} if largest else {})

    def extract(self, photos: Sequence[Photo]) -> list[Features]:
        """Extract up to settings.max_keypoints keypoints of each photo, with scales and orientations.

        Keypoints are in pixels of the original images, top-left pixel centre (0, 0). Those that a mask hides are left
        out; to make up for them, more are detected. Raises ItemError if a photo is too large for the memory.
        """
        return [self._extract(photo) for photo in photos]

    def _extract(self, photo: Photo) -> Features:
        height, width = photo.pixels.shape[:2]
        self._memory.check(width, height)
        wanted, gray = keypoints_to_detect(self._max_keypoints, photo.masks), _gray(photo.pixels)
        with self._memory.reserve(width, height):
            table, descriptors = (_largest_keypoints if self._largest else _strongest_keypoints)(gray, wanted)
        points, scores, scales, oris = table[:, :2], table[:, 2], table[:, 3], table[:, 4]
        features = Features(
            to_original(points, photo.pixels.shape, photo.size, photo.orientation),
            scores,
            rootsift(descriptors),
            photo.size,
            scales,
            angles_to_original(oris, photo.orientation),
            orientation=photo.orientation,
        )
        return drop_masked(features, photo.masks, self._max_keypoints)


def _strongest_keypoints(gray: ByteArray, wanted: int) -> tuple[FloatArray, FloatArray]:
    """The table of keypoints, see `_table`, and their descriptors (N, 128), of the highest contrast."""
    detected, described = _sift(OVERSAMPLING * wanted).detectAndCompute(gray, None)
    table = _table(detected)
    rows = best_per_pixel(table[:, :2], table[:, 2], table[:, 4])
    return table[rows], _descriptors(described)[rows]


def _largest_keypoints(gray: ByteArray, wanted: int) -> tuple[FloatArray, FloatArray]:
    """As `_strongest_keypoints`, of the largest diameters, which are the scores."""
    sift = _sift(0)
    detected = sift.detect(gray, None)
    table = _table(detected)
    rows = best_per_pixel(table[:, :2], table[:, 2], table[:, 4])
    rows = rows[np.argsort(-table[rows, 3], kind="stable")][:wanted]
    described = sift.compute(gray, [detected[row] for row in rows])[1] if len(rows) else None
    table[:, 2] = table[:, 3]
    return table[rows], _descriptors(described)


def _sift(most: int) -> cv2.SIFT:
    """SIFT that keeps at most so many keypoints, 0 for all. Not thread-safe: each photo has its own."""
    return cv2.SIFT.create(most, OCTAVE_LAYERS, CONTRAST_THRESHOLD, EDGE_THRESHOLD, SIGMA, enable_precise_upscale=True)


def _table(keypoints: Sequence[cv2.KeyPoint]) -> FloatArray:
    """(N, 5): x, y, contrast, diameter, orientation in radians."""
    values = [(*keypoint.pt, keypoint.response, keypoint.size, keypoint.angle) for keypoint in keypoints]
    table = np.array(values, np.float32).reshape(-1, 5)
    table[:, 4] = np.deg2rad(table[:, 4])
    return table


def _descriptors(described: cv2.typing.MatLike | None) -> FloatArray:
    """(N, 128) float32; OpenCV gives none for no keypoints."""
    return np.zeros((0, DESCRIPTOR_DIM), np.float32) if described is None else np.asarray(described, np.float32)


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
