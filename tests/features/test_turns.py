"""The relative turn of two photos, and the quarter turns of a set."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from lgbatch.features.relative_turns import LONG_SIDE, RelativeTurn, SmallSift, relative_turn, small_sift
from lgbatch.features.turn_synchronization import synchronize
from lgbatch.types import ByteArray, Photo
from tests.helpers.oriented import read

SIZE = (LONG_SIDE, LONG_SIDE * 3 // 4)


def small(pixels: ByteArray) -> SmallSift:
    return small_sift(Photo("", pixels, (9999, 9999)))


def turned(pixels: ByteArray, degrees: float) -> ByteArray:
    """Turn the content clockwise about the centre, by OpenCV."""
    height, width = pixels.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), -degrees, 0.8)
    return np.asarray(cv2.warpAffine(pixels, matrix, (width, height)), np.uint8)


@pytest.mark.parametrize("degrees", [0, 35, 90, -120, 180])
def test_the_angle_between_two_views_is_found(gallery: Path, degrees: float) -> None:
    first, second = read(gallery / "view_00.jpg", SIZE), read(gallery / "view_01.jpg", SIZE)
    found = relative_turn(small(first), small(turned(second, degrees)))
    assert found and found.inliers > 20
    assert abs((found.degrees - degrees + 180) % 360 - 180) < 8


def test_photos_of_nothing_in_common_have_no_turn(gallery: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*SIZE[::-1], 3), dtype=np.uint8)
    view, plain = small(read(gallery / "view_00.jpg", SIZE)), small(np.full((40, 60, 3), 9, np.uint8))
    assert relative_turn(view, small(noise)) is None
    assert len(plain.points) == 0 and plain.descriptors.shape == (0, 128)
    assert relative_turn(view, plain) is None and relative_turn(plain, view) is None


def test_one_keypoint_has_no_second_nearest() -> None:
    one = SmallSift(np.zeros((1, 2), np.float32), np.zeros(1, np.float32), np.ones((1, 128), np.uint8))
    assert relative_turn(one, one) is None


def pairs(angles: list[float], inliers: int = 30) -> dict[tuple[int, int], RelativeTurn]:
    """The relative turns of each photo and the two that follow, for photos whose content is turned by `angles`."""
    return {
        (i, j): RelativeTurn(angles[j] - angles[i], inliers)
        for i in range(len(angles))
        for j in range(i + 1, min(i + 3, len(angles)))
    }


@pytest.mark.parametrize(
    ("angles", "expected"),
    [
        ([0, 4, -3, 10, 5], [0, 0, 0, 0, 0]),
        ([0, 10, 20, 30, 40, 50, 60, 70], [0] * 8),  # neighbours differ by little: a slowly rolling camera
        ([0, 2, 180, 178, 1, -178, 3], [0, 0, 180, 180, 0, 180, 0]),  # strips to and fro
        ([0, 180], [0, 180]),
        ([0, 90, 3, 85, -2], [0, 270, 0, 270, 0]),
        ([180, 170, 5, 175, 185], [0, 0, 180, 0, 0]),  # most stay as they are
        ([20, 200, 30, 150, 10, 165, 15], [0, 180, 0, 180, 0, 180, 0]),
    ],
)
def test_neighbours_are_turned_alike(angles: list[float], expected: list[int]) -> None:
    assert synchronize(len(angles), pairs(angles)).degrees == expected


def test_little_or_contradicted_evidence_turns_nothing() -> None:
    assert synchronize(3, pairs([0, 180, 0], inliers=9)).degrees == [0, 0, 0]
    assert synchronize(2, {(0, 1): RelativeTurn(180, 12)}).degrees == [0, 0]
    wrong = pairs([0.0] * 6) | {(0, 5): RelativeTurn(90, 40), (1, 5): RelativeTurn(180, 14)}
    assert synchronize(6, wrong).degrees == [0] * 6


def test_photos_that_were_decided_on_keep_their_turns() -> None:
    angles = [0.0, 180, 0, 180]
    assert synchronize(4, pairs(angles), {0: 180, 1: 0}).degrees == [180, 0, 180, 0]
    assert synchronize(4, pairs(angles), {0: 0, 1: 0}).degrees[:2] == [0, 0]
    assert synchronize(5, {}, {4: 90}).degrees == [0, 0, 0, 0, 90]


def test_scenes_are_turned_for_themselves() -> None:
    first, second = pairs([0, 180, 0]), pairs([90, 95, 270])
    both = first | {(i + 3, j + 3): turn for (i, j), turn in second.items()}
    assert synchronize(6, both).degrees == [0, 180, 0, 0, 0, 180]
