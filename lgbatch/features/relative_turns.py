"""By what angle one photo is turned against another, from SIFT features of small copies of both.

SIFT (Lowe, IJCV 2004) finds the same keypoints in a turned photo and tells the orientation of each. Mutual nearest
neighbours that pass the ratio test vote for a similarity transform (RANSAC), and the orientations of its inliers must
turn by its angle. Measured on the 64 photos of a drone survey against the cameras of a model: of 163 pairs with 6 or
more inliers, none has a wrong angle; the median error is 1.2 degrees.
"""

from typing import NamedTuple

import cv2
import numpy as np

from lgbatch.features.sift import rootsift
from lgbatch.pairing.nearest_descriptors import mutual_nearest
from lgbatch.photos.coordinates import resized_size
from lgbatch.types import ByteArray, FloatArray, Photo

LONG_SIDE = 480
"""Long side of the small copies, in pixels."""
_LEAST_SIDE = 320
"""Long side of the copies of photos of less than twice LONG_SIDE: those are extracted quickly, too."""
_KEYPOINTS = 500
_CONTRAST = 0.01
"""Contrast threshold of SIFT, a quarter of OpenCV's default: fields have weak texture."""
_MIN_VOTES = 6
"""Fewer pairs of keypoints than this tell nothing."""
_TOLERANCE = 0.02
"""RANSAC's inlier threshold, as a part of LONG_SIDE: a similarity is a rough model of two views of a scene."""
_ANGLE_TOLERANCE = 25
"""Degrees by which the orientation of an inlier may differ from the similarity."""
_MAX_ZOOM = 2.5
"""Larger changes of scale are rather mistakes than photos of one scene."""


class SmallSift(NamedTuple):
    """SIFT features of a small copy of a photo."""

    points: FloatArray
    """(N, 2) x and y in pixels of the copy."""
    angles: FloatArray
    """(N,) orientations in degrees, clockwise."""
    descriptors: ByteArray
    """(N, 128) as OpenCV computes them: whole numbers up to 255."""

    def unit_descriptors(self, best: int | None = None) -> FloatArray:
        """Return RootSIFT descriptors (N, 128), rows of norm 1: all, or those of the first keypoints."""
        return rootsift(self.descriptors[:best].astype(np.float32))


class RelativeTurn(NamedTuple):
    """How the second photo of a pair is turned against the first."""

    degrees: float
    """Clockwise turn of the content from the first to the second photo, -180 to 180."""
    inliers: int
    """Pairs of keypoints that agree."""


def small_sift(photo: Photo) -> SmallSift:
    """Detect up to 500 keypoints in a small copy of a photo. Thread-safe."""
    pixels, long_side = photo.pixels, min(LONG_SIDE, max(_LEAST_SIDE, max(photo.size) // 2))
    size = resized_size(pixels.shape[1], pixels.shape[0], long_side)
    if size != pixels.shape[1::-1]:
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    keypoints, descriptors = cv2.SIFT.create(_KEYPOINTS, contrastThreshold=_CONTRAST).detectAndCompute(gray, None)
    table = np.array([(*k.pt, k.angle) for k in keypoints], np.float32).reshape(-1, 3)
    described = np.zeros((0, 128)) if descriptors is None else np.asarray(descriptors)
    return SmallSift(table[:, :2], table[:, 2], described.astype(np.uint8))


def relative_turn(first: SmallSift, second: SmallSift) -> RelativeTurn | None:
    """Estimate by what angle `second` is turned against `first`; None if too few keypoints agree. Deterministic."""
    rows, columns = mutual_nearest(first.unit_descriptors(), second.unit_descriptors())
    if len(rows) < _MIN_VOTES:
        return None
    a, b = first.points[rows], second.points[columns]
    similarity, inliers = cv2.estimateAffinePartial2D(
        a, b, ransacReprojThreshold=_TOLERANCE * LONG_SIDE, maxIters=300, confidence=0.99, refineIters=0
    )
    if similarity is None:
        return None
    cosine, sine = similarity[0, 0], similarity[1, 0]
    degrees, zoom = float(np.degrees(np.arctan2(sine, cosine))), float(np.hypot(cosine, sine))
    if not 1 / _MAX_ZOOM < zoom < _MAX_ZOOM:
        return None
    deviation = _wrapped(second.angles[columns] - first.angles[rows] - degrees)
    agreeing = int(np.count_nonzero((np.abs(deviation) < _ANGLE_TOLERANCE) & (np.ravel(inliers) > 0)))
    return RelativeTurn(degrees, agreeing) if agreeing >= _MIN_VOTES else None


def _wrapped(degrees: FloatArray) -> FloatArray:
    """Return angles in -180 to 180 degrees."""
    angles: FloatArray = np.remainder(degrees + 180, 360) - 180
    return angles
