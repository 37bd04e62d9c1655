"""Orientation and size of a photo's pixels: the maps between the file, the upright photo and the resized upright photo.

An orientation is an EXIF code: how to turn the stored pixels so that the photo is upright.

    1  as stored                  5  transpose: rows become columns
    2  mirror left and right      6  rotate by 90 degrees clockwise
    3  rotate by 180 degrees      7  transpose, and rotate by 180 degrees
    4  mirror top and bottom      8  rotate by 270 degrees clockwise

Points are x and y; the centre of the top-left pixel is (0, 0) in every frame. For orientation 1, nothing is computed.
"""

import math

import numpy as np
from numpy.typing import NDArray

from lgbatch.types import ORIENTATIONS, ByteArray, FloatArray

MIRROR = 2
"""The orientation of pixels that are mirrored left and right."""
_MIRRORED = (2, 4, 5, 7)
_ROTATIONS = {3: 180, 4: 180, 5: 270, 6: 90, 7: 90, 8: 270}
_FLIPS = {2: (True, False), 3: (True, True), 4: (False, True), 6: (True, False), 7: (True, True), 8: (False, True)}
"""Whether x and y change their sense, after the transposition of orientations 5 to 8."""

_STEP = 1 / 1024
"""Of keypoints, in pixels: float32 has as many digits for photos of up to 16384 pixels."""


def is_mirrored(orientation: int) -> bool:
    """Whether the stored pixels are a mirror image of the upright photo."""
    return orientation in _MIRRORED


def rotation_of(orientation: int) -> int:
    """Return the degrees clockwise, 0, 90, 180 or 270, by which the stored pixels are rotated to be upright.

    Mirrored pixels are mirrored left and right before.
    """
    return _ROTATIONS.get(orientation, 0)


def rotated(orientation: int, degrees: int) -> int:
    """Return the orientation that turns a photo upright by `orientation` and then by `degrees` clockwise more."""
    rotation = (rotation_of(orientation) + degrees) % 360
    fitting = (code for code in ORIENTATIONS if is_mirrored(code) == is_mirrored(orientation))
    return next(code for code in fitting if rotation_of(code) == rotation)


def upright_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Return (width, height) of the upright photo, given that of the file."""
    return (size[1], size[0]) if orientation >= 5 else size


def turn(pixels: ByteArray, orientation: int) -> ByteArray:
    """Turn the pixels (H, W, C) or (H, W) of a file upright. Returns a contiguous array; the same one for code 1."""
    import cv2  # late: matching maps points only

    if orientation >= 5:
        pixels = np.asarray(cv2.transpose(pixels), np.uint8)
    flip_x, flip_y = _FLIPS.get(orientation, (False, False))
    if flip_x or flip_y:
        pixels = np.asarray(cv2.flip(pixels, -1 if flip_x and flip_y else int(flip_x)), np.uint8)
    return pixels


def to_upright(points: FloatArray, size: tuple[int, int], orientation: int) -> FloatArray:
    """Map points (N, 2) from pixels of the file to pixels of the upright photo, float32.

    `size` is (width, height) of the file.
    """
    if orientation == 1:
        return points
    upright = points.astype(np.float64)
    if orientation >= 5:
        upright = upright[:, ::-1]
    return _flip(upright, upright_size(size, orientation), orientation).astype(np.float32, order="C")


def to_original(
    keypoints: FloatArray, pixels_shape: tuple[int, ...], size: tuple[int, int], orientation: int = 1
) -> FloatArray:
    """Map keypoints from pixels of the resized upright photo to pixels of the file.

    `keypoints` and the result are (N, 2), the result is float32. `pixels_shape` is Photo.pixels.shape, (H, W, 3);
    `size` is Photo.size, (width, height) of the file. The map undoes the resizing by (k + 0.5) * scale - 0.5 with
    scale = original / resized, for each axis alone, because sides are rounded to whole pixels; then the turning. The
    result is in multiples of 1/1024 pixel, so that to_upright maps it back without an error.
    """
    height, width = pixels_shape[:2]
    upright = upright_size(size, orientation)
    scale = np.array([upright[0] / width, upright[1] / height])
    mapped: NDArray[np.float64] = np.rint(((keypoints + 0.5) * scale - 0.5) / _STEP) * _STEP
    if orientation != 1:
        mapped = _flip(mapped, upright, orientation)
    if orientation >= 5:
        mapped = mapped[:, ::-1]
    return mapped.astype(np.float32, order="C")


def angles_to_upright(angles: FloatArray, orientation: int) -> FloatArray:
    """Map directions (N,) from the file to the upright photo: radians in 0..2 pi, clockwise from x, float32."""
    if orientation == 1:
        return angles
    upright = math.pi / 2 - angles.astype(np.float64) if orientation >= 5 else angles.astype(np.float64)
    return _in_circle(_flip_angles(upright, orientation))


def angles_to_original(angles: FloatArray, orientation: int) -> FloatArray:
    """Map directions (N,) from the upright photo to the file: radians in 0..2 pi, clockwise from x, float32."""
    if orientation == 1:
        return angles
    flipped = _flip_angles(angles.astype(np.float64), orientation)
    return _in_circle(math.pi / 2 - flipped if orientation >= 5 else flipped)


def resized_size(width: int, height: int, resize: int) -> tuple[int, int]:
    """Return (width, height) with the long side shrunk to `resize`; unchanged if `resize` is 0 or not smaller."""
    long_side = max(width, height)
    if not 0 < resize < long_side:
        return width, height
    return max(1, round(width * resize / long_side)), max(1, round(height * resize / long_side))


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


def _flip(points: NDArray[np.float64], size: tuple[int, int], orientation: int) -> NDArray[np.float64]:
    """Mirror points (N, 2) of an upright photo of `size` (width, height) as the orientation does. Undoes itself."""
    flips = np.array(_FLIPS.get(orientation, (False, False)))
    return np.where(flips, np.array(size) - 1 - points, points)


def _flip_angles(angles: NDArray[np.float64], orientation: int) -> NDArray[np.float64]:
    flip_x, flip_y = _FLIPS.get(orientation, (False, False))
    if flip_x:
        angles = math.pi - angles
    return -angles if flip_y else angles


def _in_circle(angles: NDArray[np.float64]) -> FloatArray:
    turned: FloatArray = np.mod(angles, 2 * math.pi).astype(np.float32)
    return turned
