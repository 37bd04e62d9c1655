"""Grey photos that are kept while the memory allows, and alignment in blocks of points."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from lgbatch.reconstruction.refinement import align
from lgbatch.reconstruction.refinement.photos import GreyPhotos
from tests.reconstruction.refinement.helpers import make_scene
from tests.reconstruction.refinement.test_model import refined

SIZE = (60, 40)


def write(folder: Path, count: int) -> None:
    for i in range(count):
        cv2.imwrite(str(folder / f"{i}.png"), np.full((SIZE[1], SIZE[0], 3), (10 * i, 100, 200), np.uint8))


def test_photos_that_were_used_last_are_kept_up_to_a_limit(tmp_path: Path) -> None:
    write(tmp_path, 3)
    photos = GreyPhotos(tmp_path, most_bytes=2 * SIZE[0] * SIZE[1])
    first, second = photos.read("0.png", SIZE), photos.read("1.png", SIZE)
    assert first is not None and first.shape == (40, 60) and photos.read("0.png", SIZE) is first
    photos.read("2.png", SIZE)
    assert photos.read("0.png", SIZE) is first
    again = photos.read("1.png", SIZE)
    assert again is not second and np.array_equal(again, second)


def test_a_photo_that_is_missing_damaged_or_of_another_size_is_none(tmp_path: Path) -> None:
    write(tmp_path, 1)
    (tmp_path / "bad.png").write_bytes(b"no photo")
    photos = GreyPhotos(tmp_path)
    assert photos.read("0.png", (40, 60)) is None and photos.read("0.png", SIZE) is not None
    assert photos.read("bad.png", SIZE) is None and photos.read("missing.png", SIZE) is None


def test_blocks_of_points_do_not_change_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = make_scene(tmp_path / "photos", points=150)
    whole = refined(scene)
    monkeypatch.setattr(align, "_BLOCK_POINTS", 40)
    assert refined(scene).figures == whole.figures
