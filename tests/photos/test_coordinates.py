"""The maps between the file, the upright photo and the resized upright photo."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from lgbatch.photos.coordinates import (
    ORIENTATIONS,
    angles_to_original,
    angles_to_upright,
    is_mirrored,
    rotation_of,
    to_original,
    to_upright,
    turn,
    upright_size,
)

SIZE = (7, 5)
PIXELS = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)


def grid(size: tuple[int, int]) -> np.ndarray:
    """All pixel centres of an image, (N, 2) float32, row by row."""
    y, x = np.mgrid[: size[1], : size[0]]
    return np.column_stack([x.ravel(), y.ravel()]).astype(np.float32)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_pixels_are_turned_as_by_pillow(orientation: int) -> None:
    image = Image.fromarray(PIXELS)
    image.getexif()[274] = orientation
    expected = np.asarray(ImageOps.exif_transpose(image))
    turned = turn(PIXELS, orientation)
    np.testing.assert_array_equal(turned, expected)
    assert turned.flags.c_contiguous and turned.shape[1::-1] == upright_size(SIZE, orientation)
    np.testing.assert_array_equal(turn(PIXELS[..., 0], orientation), expected[..., 0])


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_points_follow_the_pixels_and_return(orientation: int) -> None:
    points, turned = grid(SIZE), turn(PIXELS, orientation)
    upright = to_upright(points, SIZE, orientation)
    x, y = upright.astype(int).T
    np.testing.assert_array_equal(turned[y, x], PIXELS.reshape(-1, 3))
    assert upright.dtype == np.float32
    np.testing.assert_array_equal(to_original(upright, turned.shape, SIZE, orientation), points)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_resizing_is_undone_in_the_upright_photo(orientation: int) -> None:
    size, (width, height) = (4000, 3001), upright_size((1001, 750), orientation)
    points = np.random.default_rng(0).random((50, 2)).astype(np.float32) * (width, height)
    expected = to_original(points, (height, width, 3), upright_size(size, orientation))
    found = to_original(points, (height, width, 3), size, orientation)
    np.testing.assert_allclose(to_upright(found, size, orientation), expected, atol=1e-3)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_directions_follow_the_points_and_return(orientation: int) -> None:
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False, dtype=np.float32)
    start = np.full((24, 2), 50, np.float32)
    end = start + 10 * np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32)
    step = to_upright(end, (100, 90), orientation) - to_upright(start, (100, 90), orientation)
    turned = angles_to_upright(angles, orientation)
    np.testing.assert_allclose(np.column_stack([np.cos(turned), np.sin(turned)]), step / 10, atol=1e-5)
    back = angles_to_original(turned, orientation)
    assert ((turned >= 0) & (turned < 6.2832)).all() and turned.dtype == back.dtype == np.float32
    np.testing.assert_allclose(np.exp(1j * back), np.exp(1j * angles), atol=1e-5)


def test_upright_photos_are_left_alone() -> None:
    points, angles = grid(SIZE), np.ones(3, np.float32)
    assert turn(PIXELS, 1) is PIXELS and to_upright(points, SIZE, 1) is points
    assert angles_to_upright(angles, 1) is angles and angles_to_original(angles, 1) is angles


def test_orientations_in_words() -> None:
    assert [o for o in ORIENTATIONS if is_mirrored(o)] == [2, 4, 5, 7]
    assert {o: rotation_of(o) for o in (1, 3, 6, 8)} == {1: 0, 3: 180, 6: 90, 8: 270}
    for orientation in (2, 4, 5, 7):  # mirrored left and right, then rotated clockwise
        rotated = np.rot90(PIXELS[:, ::-1], -rotation_of(orientation) // 90)
        np.testing.assert_array_equal(turn(PIXELS, orientation), rotated)
