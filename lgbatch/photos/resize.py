"""Photos to pixels: 8-bit RGB, turned as COLMAP sees them, at the size the extractor wants."""

import numpy as np

from lgbatch.types import FloatArray


def resized(width: int, height: int, resize: int) -> tuple[int, int]:
    """(width, height) after the long side was shrunk to `resize`; unchanged when it is 0 or not smaller."""
    long = max(width, height)
    if not 0 < resize < long:
        return width, height
    return max(1, round(width * resize / long)), max(1, round(height * resize / long))


def to_original(keypoints: FloatArray, pixels_shape: tuple[int, ...], size: tuple[int, int]) -> FloatArray:
    """Keypoints of the resized pixels in pixels of the original image.

    `keypoints` is (N, 2), x and y, top-left pixel centre (0, 0), and so is the result, as float32.
    `pixels_shape` is Photo.pixels.shape, (H, W, 3); `size` is Photo.size, (width, height). The map is
    (k + 0.5) * scale - 0.5; each axis has its own scale, original / resized, since sides are whole pixels.
    """
    height, width = pixels_shape[:2]
    scale = np.array([size[0] / width, size[1] / height])
    mapped: FloatArray = ((keypoints + 0.5) * scale - 0.5).astype(np.float32)
    return mapped
