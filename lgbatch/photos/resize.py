"""Size of a resized photo, and the map of keypoints back to the original image."""

import numpy as np
from numpy.typing import NDArray

from lgbatch.types import ByteArray, FloatArray


def resized_size(width: int, height: int, resize: int) -> tuple[int, int]:
    """Return (width, height) with the long side shrunk to `resize`; unchanged if `resize` is 0 or not smaller."""
    long_side = max(width, height)
    if not 0 < resize < long_side:
        return width, height
    return max(1, round(width * resize / long_side)), max(1, round(height * resize / long_side))


def to_original(keypoints: FloatArray, pixels_shape: tuple[int, ...], size: tuple[int, int]) -> FloatArray:
    """Map keypoints from pixels of the resized photo to pixels of the original image.

    `keypoints` and the result are (N, 2), x and y, top-left pixel centre (0, 0); the result is float32.
    `pixels_shape` is Photo.pixels.shape, (H, W, 3); `size` is Photo.size, (width, height). The map is
    (k + 0.5) * scale - 0.5 with scale = original / resized, for each axis alone: sides are rounded to whole pixels.
    """
    height, width = pixels_shape[:2]
    scale = np.array([size[0] / width, size[1] / height])
    mapped: FloatArray = ((keypoints + 0.5) * scale - 0.5).astype(np.float32)
    return mapped


def interpolate(pixels: ByteArray, points: NDArray[np.floating]) -> FloatArray:
    """Interpolate `pixels` (H, W, C) bilinearly at `points` (N, 2): x and y, top-left pixel centre (0, 0).

    Returns (N, C) float32; NaN for points without four pixels around them.
    """
    height, width = pixels.shape[:2]
    corner = np.floor(points).astype(np.int64)
    inside = ((corner >= 0) & (corner < (width - 1, height - 1))).all(axis=1)
    x, y = corner[inside].T
    dx, dy = (points[inside] - corner[inside]).T[..., None]
    top = (1 - dx) * pixels[y, x] + dx * pixels[y, x + 1]
    bottom = (1 - dx) * pixels[y + 1, x] + dx * pixels[y + 1, x + 1]
    values = np.full((len(points), pixels.shape[2]), np.nan, np.float32)
    values[inside] = (1 - dy) * top + dy * bottom
    return values
