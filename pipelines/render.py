"""Render textured rectangles by homographies and a depth buffer.

World units are metres. In images and textures the centre of the top-left pixel is (0, 0).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lgbatch.reconstruction.evaluation.truth import Array, KnownCamera
from lgbatch.types import ByteArray, FloatArray

_SAMPLES = 3  # Per pixel and axis. Sampling skips hardly any texel up to this many texels per pixel.


@dataclass(frozen=True, eq=False)
class Quad:
    """A textured rectangle, visible only from its front."""

    corner: Array
    """(3,) float64, world position of the top-left corner of the texture: the corner of its first pixel."""
    right: Array
    """(3,) float64, vector from `corner` to the top-right corner."""
    down: Array
    """(3,) float64, vector from `corner` to the bottom-left corner."""
    texture: ByteArray
    """(H, W, 3) uint8, BGR."""


def view(camera: KnownCamera, quads: Sequence[Quad]) -> FloatArray:
    """Render quads: (H, W, 3) float32, BGR in 0..255, without noise. The background is black.

    Warps each quad by its homography at several samples per pixel. A depth buffer decides which quad is in front.
    """
    grid_size = camera.size[0] * _SAMPLES, camera.size[1] * _SAMPLES
    image = np.zeros((*grid_size[::-1], 3), np.uint8)
    nearness = np.zeros(grid_size[::-1], np.float32)
    for quad in quads:
        grid_from_texture = _grid_from_texture(camera, quad)
        if np.linalg.det(grid_from_texture) <= 0:  # The camera sees the back.
            continue
        x, y, width, height = _bounding_box(grid_from_texture, quad, grid_size)
        if not width * height:
            continue
        box = np.s_[y : y + height, x : x + width]
        texture_from_box = np.linalg.inv(grid_from_texture) @ np.array([[1, 0, x], [0, 1, y], [0, 0, 1]])
        front = _update_depth(texture_from_box, quad, nearness[box])
        warped = cv2.warpPerspective(
            quad.texture,
            texture_from_box,
            (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        np.copyto(image[box], warped, where=front[..., None])
    return cv2.resize(image.astype(np.float32), camera.size, interpolation=cv2.INTER_AREA).astype(np.float32)


def _grid_from_texture(camera: KnownCamera, quad: Quad) -> Array:
    """The homography from texture pixels to samples: (u, v, 1) becomes depth * (x, y, 1)."""
    height, width = quad.texture.shape[:2]
    world_from_texture = np.zeros((4, 3))
    world_from_texture[:3] = np.column_stack([quad.right / width, quad.down / height, quad.corner])
    world_from_texture[3, 2] = 1
    # The corner is half a texel from the first texel's centre; sample k is at pixel (k + 0.5) / _SAMPLES - 0.5.
    corner_from_centre = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    half = (_SAMPLES - 1) / 2
    grid_from_image = np.array([[_SAMPLES, 0, half], [0, _SAMPLES, half], [0, 0, 1]])
    image_from_world = camera.calibration @ camera.camera_from_world
    homography: Array = grid_from_image @ image_from_world @ world_from_texture @ corner_from_centre
    return homography


def _bounding_box(grid_from_texture: Array, quad: Quad, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """x, y, width, height of the quad in the image; the whole image if the quad reaches behind the camera."""
    h, w = quad.texture.shape[:2]
    corners = np.array([[0, 0, 1], [w, 0, 1], [0, h, 1], [w, h, 1]]) - np.array([0.5, 0.5, 0])
    rays = corners @ grid_from_texture.T
    if (rays[:, 2] <= 0).any():
        return 0, 0, *size
    xy = rays[:, :2] / rays[:, 2:]
    low = np.clip(np.floor(xy.min(axis=0)), 0, size).astype(int)
    high = np.clip(np.ceil(xy.max(axis=0)) + 1, low, size).astype(int)
    return int(low[0]), int(low[1]), int(high[0] - low[0]), int(high[1] - low[1])


def _update_depth(texture_from_box: Array, quad: Quad, nearness: FloatArray) -> NDArray[np.bool_]:
    """The mask of samples at which the quad is in front; updates the depth buffer `nearness` (inverse depth) there.

    The homography maps a sample to (u, v, 1) / depth, so every test is linear in the position of the sample.
    """
    h, w = quad.texture.shape[:2]
    u, v, near = texture_from_box
    inside_tests = u + near / 2, v + near / 2, (w - 0.5) * near - u, (h - 0.5) * near - v
    quad_nearness = _linear(near, nearness.shape)
    front = quad_nearness > nearness
    for test in inside_tests:
        front &= _linear(test, nearness.shape) >= 0
    np.copyto(nearness, quad_nearness, where=front)
    return front


def _linear(row: Array, shape: tuple[int, ...]) -> FloatArray:
    """The dot product of `row` and (x, y, 1) at each sample (x, y)."""
    y, x = (np.arange(n) for n in shape)
    values: FloatArray = (row[0] * x).astype(np.float32) + (row[1] * y + row[2]).astype(np.float32)[:, None]
    return values
