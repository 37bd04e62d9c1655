"""Photos of textured rectangles from known cameras: plain perspective warps and a depth buffer.

World units are metres. In images and textures the centre of the top-left pixel is (0, 0).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lgbatch.reconstruction.truth import Array, KnownCamera
from lgbatch.types import ByteArray, FloatArray

_FINE = 3  # Samples per pixel and axis: up to that many texels per pixel, sampling hardly ever skips one.


@dataclass(frozen=True, eq=False)
class Quad:
    """A textured rectangle, seen only from its front."""

    corner: Array
    """(3,) float64, world position of the top-left corner of the texture (of its first pixel's corner)."""
    right: Array
    """(3,) float64, from there to the top-right corner."""
    down: Array
    """(3,) float64, from there to the bottom-left corner."""
    texture: ByteArray
    """(H, W, 3) uint8, BGR."""


def view(camera: KnownCamera, quads: Sequence[Quad]) -> FloatArray:
    """What the camera sees, (H, W, 3) float32, BGR in 0..255, without noise; black where there is no quad.

    Each quad is warped by its homography at several samples per pixel; a depth buffer says which is in front.
    """
    fine_size = camera.size[0] * _FINE, camera.size[1] * _FINE
    image = np.zeros((*fine_size[::-1], 3), np.uint8)
    nearness = np.zeros(fine_size[::-1], np.float32)
    for quad in quads:
        fine_from_texture = _fine_from_texture(camera, quad)
        if np.linalg.det(fine_from_texture) <= 0:  # Seen from behind.
            continue
        x, y, width, height = _window(fine_from_texture, quad, fine_size)
        if not width * height:
            continue
        part = np.s_[y : y + height, x : x + width]
        texture_from_part = np.linalg.inv(fine_from_texture) @ np.array([[1, 0, x], [0, 1, y], [0, 0, 1]])
        front = _claim(texture_from_part, quad, nearness[part])
        warped = cv2.warpPerspective(
            quad.texture,
            texture_from_part,
            (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        np.copyto(image[part], warped, where=front[..., None])
    return cv2.resize(image.astype(np.float32), camera.size, interpolation=cv2.INTER_AREA).astype(np.float32)


def _fine_from_texture(camera: KnownCamera, quad: Quad) -> Array:
    """Homography from texture pixels to samples; it turns (u, v, 1) into depth * (x, y, 1)."""
    height, width = quad.texture.shape[:2]
    world_from_texture = np.zeros((4, 3))
    world_from_texture[:3] = np.column_stack([quad.right / width, quad.down / height, quad.corner])
    world_from_texture[3, 2] = 1
    # The corner is half a pixel from the first texel's centre; sample k is at pixel (k + 0.5) / _FINE - 0.5.
    edge_from_centre = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    half = (_FINE - 1) / 2
    fine_from_image = np.array([[_FINE, 0, half], [0, _FINE, half], [0, 0, 1]])
    image_from_world = camera.calibration @ camera.camera_from_world
    homography: Array = fine_from_image @ image_from_world @ world_from_texture @ edge_from_centre
    return homography


def _window(fine_from_texture: Array, quad: Quad, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """x, y, width, height of where the quad can be in the image: all of it if it reaches behind the camera."""
    h, w = quad.texture.shape[:2]
    corners = np.array([[0, 0, 1], [w, 0, 1], [0, h, 1], [w, h, 1]]) - np.array([0.5, 0.5, 0])
    rays = corners @ fine_from_texture.T
    if (rays[:, 2] <= 0).any():
        return 0, 0, *size
    xy = rays[:, :2] / rays[:, 2:]
    low = np.clip(np.floor(xy.min(axis=0)), 0, size).astype(int)
    high = np.clip(np.ceil(xy.max(axis=0)) + 1, low, size).astype(int)
    return int(low[0]), int(low[1]), int(high[0] - low[0]), int(high[1] - low[1])


def _claim(texture_from_part: Array, quad: Quad, nearness: FloatArray) -> NDArray[np.bool_]:
    """Where the quad is nearer than what was drawn so far; `nearness` (inverse depth) is updated there.

    The homography gives (u, v, 1) / depth for each sample, so all tests are linear in its position.
    """
    h, w = quad.texture.shape[:2]
    u, v, near = texture_from_part
    tests = u + near / 2, v + near / 2, (w - 0.5) * near - u, (h - 0.5) * near - v
    here = _linear(near, nearness.shape)
    front = here > nearness
    for test in tests:
        front &= _linear(test, nearness.shape) >= 0
    np.copyto(nearness, here, where=front)
    return front


def _linear(row: Array, shape: tuple[int, ...]) -> FloatArray:
    """The product of row and (x, y, 1) at each sample (x, y)."""
    y, x = (np.arange(n) for n in shape)
    values: FloatArray = (row[0] * x).astype(np.float32) + (row[1] * y + row[2]).astype(np.float32)[:, None]
    return values
