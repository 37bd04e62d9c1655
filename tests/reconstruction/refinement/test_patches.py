"""Alignment of patches: sub-pixel shifts, brightness, and patches that cannot be aligned."""

import cv2
import numpy as np
import pytest

from lgbatch.photos.coordinates import interpolate
from lgbatch.reconstruction.refinement.patches import RADIUS, Templates, align, cut_templates, no_templates, sample
from lgbatch.types import ByteArray

RNG = np.random.default_rng(0)
TURN = np.array([[1.1, 0.2], [-0.15, 0.9]])


def texture(size: tuple[int, int] = (160, 200)) -> ByteArray:
    noise = np.random.default_rng(5).random((size[0] // 4, size[1] // 4), dtype=np.float32) * 200 + 20
    return np.clip(cv2.resize(noise, size[::-1], interpolation=cv2.INTER_CUBIC), 0, 255).astype(np.uint8)


def warped(photo: ByteArray, linear: np.ndarray, shift: tuple[float, float]) -> ByteArray:
    """Move the pixel at x to `linear` x + `shift`."""
    return np.asarray(
        cv2.warpAffine(photo, np.column_stack([linear, shift]), (240, 240), flags=cv2.INTER_CUBIC), np.uint8
    )


@pytest.mark.parametrize("gain", [1.0, 0.5])
def test_patches_are_found_at_a_fraction_of_a_pixel(gain: float) -> None:
    photo, centres = texture(), RNG.uniform(40, 120, (50, 2))
    target = (warped(photo, TURN, (7.3, 30.6)) * gain + (1 - gain) * 60).astype(np.uint8)
    truth = centres @ TURN.T + (7.3, 30.6)
    found = align(
        target, cut_templates(photo, centres), truth + RNG.uniform(-1.2, 1.2, (50, 2)), np.tile(TURN, (50, 1, 1))
    )
    errors = np.linalg.norm(found.positions - truth, axis=1)
    good = found.correlation > 0.9
    assert good.mean() > 0.9 and np.median(errors[good]) < 0.03 and (errors[good] < 0.2).all()


def test_patches_without_texture_or_outside_are_not_found() -> None:
    photo = texture()
    photo[:60] = 128
    photo[60:, :60] = np.arange(100)[:, None]  # a ramp: no texture along x
    centres = np.array([[100.0, 20], [30, 110], [2, 100], [195, 155], [150, 120]])
    found = align(photo, cut_templates(photo, centres), centres, np.tile(np.eye(2), (5, 1, 1)))
    assert (found.correlation[:4] == -1).all() and found.correlation[4] == pytest.approx(1, abs=1e-5)
    assert np.array_equal(found.positions[:4], centres[:4])
    assert found.positions[4] == pytest.approx(centres[4], abs=1e-3)


def test_a_patch_that_leaves_the_photo_is_not_found() -> None:
    photo = texture()
    templates = cut_templates(photo, np.array([[100.0, 80]] * 2))
    maps = np.stack([np.eye(2), np.full((2, 2), np.nan)])
    assert (align(photo, templates, np.array([[3.0, 80], [100, 80]]), maps).correlation == -1).all()


def test_more_patches_than_a_block_are_each_as_alone() -> None:
    photo, centres = texture(), RNG.uniform(20, 140, (3000, 2))
    templates, maps = cut_templates(photo, centres), np.tile(np.eye(2), (3000, 1, 1))
    start = centres + RNG.uniform(-1, 1, centres.shape)
    together = align(photo, templates, start, maps)
    rows = np.array([0, 2047, 2048, 2999])
    alone = align(photo, templates[rows], start[rows], maps[rows])
    assert np.allclose(together.positions[rows], alone.positions, atol=1e-4)


def test_samples_are_those_of_bilinear_interpolation() -> None:
    photo, points = texture(), RNG.uniform(0, 150, (40, 1, 2)).astype(np.float32)
    inside, values = sample(photo, points)
    assert inside.all()
    assert np.allclose(values[:, 0], interpolate(photo[..., None], points[:, 0])[:, 0], atol=1e-3)
    assert not sample(photo, np.array([[[10, 10], [-0.1, 5]], [[10, 10], [199, 5]]], np.float32))[0].any()


def test_templates_are_put_in_their_rows() -> None:
    templates = no_templates(3)
    templates.put(np.array([2]), cut_templates(texture(), np.array([[100.0, 80]])))
    assert templates.usable.tolist() == [False, False, True]
    assert isinstance(templates[np.array([2])], Templates) and templates.brightness.shape == (3, (2 * RADIUS + 1) ** 2)
