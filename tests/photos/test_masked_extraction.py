"""Extraction with masks: hidden keypoints, stale features, failures."""

import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from lgbatch.config import Settings
from lgbatch.errors import StoreError
from lgbatch.features.extract import Extracted, extract
from lgbatch.features.network import Extractor
from lgbatch.photos.crawl import crawl
from lgbatch.photos.decode import decode
from lgbatch.storage.features import FeatureStore
from lgbatch.types import Features

LIMIT = 60
SIZE = (240, 180)


@pytest.fixture
def photos(gallery: Path, tmp_path: Path) -> Path:
    """Two small photos in tmp_path/photos."""
    folder = tmp_path / "photos"
    (folder / "x").mkdir(parents=True)
    for number, name in enumerate(("a.jpg", "x/b.jpg")):
        view = cv2.imread(str(gallery / f"view_0{number}.jpg"))
        cv2.imwrite(str(folder / name), cv2.resize(view, SIZE, interpolation=cv2.INTER_AREA))
    return folder


def run(photos: Path, **changes: object) -> Extracted:
    settings = Settings.load(extractor="sift", max_keypoints=LIMIT, **changes)
    return extract(photos, photos.parent / "features.h5", models=photos, settings=settings)


def read(photos: Path) -> dict[str, Features]:
    with FeatureStore(photos.parent / "features.h5") as store:
        assert len(store.provenances) == 1
        return {name: store.read(name) for name in store.names()}


def left_half(path: Path, size: tuple[int, int] = SIZE) -> Path:
    """A mask that hides the left half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size[1], size[0]), 255, np.uint8)
    pixels[:, : size[0] // 2] = 0
    cv2.imwrite(str(path), pixels)
    return path


def test_no_keypoint_is_on_black_and_more_are_detected_beside_it(photos: Path) -> None:
    masks = photos.parent / "masks"
    left_half(masks / "x/b.jpg.png")
    assert run(photos, masks=masks).new == 2
    masked = read(photos)
    (photos.parent / "features.h5").unlink()
    run(photos)
    plain = read(photos)
    assert (plain["x/b.jpg"].keypoints[:, 0] < SIZE[0] / 2 - 0.5).any()
    assert (masked["x/b.jpg"].keypoints[:, 0] >= SIZE[0] / 2 - 0.5).all()
    assert len(masked["x/b.jpg"].keypoints) == len(plain["x/b.jpg"].keypoints) == LIMIT
    np.testing.assert_array_equal(masked["a.jpg"].descriptors, plain["a.jpg"].descriptors)


def test_an_added_changed_or_removed_mask_makes_the_photo_stale(photos: Path) -> None:
    masks = photos.parent / "masks"
    run(photos)
    mask = left_half(masks / "a.png")
    with pytest.raises(StoreError, match=r"1 photo .*got another mask \(a\.jpg\): --on-change recompute"):
        run(photos, masks=masks)
    assert run(photos, masks=masks, on_change="recompute").new == 1
    assert run(photos, masks=masks).new == 0
    os.utime(mask, ns=(5, 5))
    assert run(photos, masks=masks).new == 0
    cv2.imwrite(str(mask), 255 - cv2.imread(str(mask)))
    assert run(photos, masks=masks, on_change="recompute").new == 1
    assert (read(photos)["a.jpg"].keypoints[:, 0] < SIZE[0] / 2).all()
    with pytest.raises(StoreError, match=r"1 photo .*\(a\.jpg\)"):
        run(photos)


def test_a_photo_with_an_unfit_mask_fails_until_the_mask_is_right(photos: Path) -> None:
    mask = left_half(photos.parent / "camera.png", (100, 100))
    failures = run(photos, camera_mask=mask).failures
    assert [failure.name for failure in failures] == ["a.jpg", "x/b.jpg"]
    assert failures[0].reason == (
        "its mask camera.png is 100x100, but the photo is 240x180: make it of the photo's size"
    )
    left_half(mask)
    done = run(photos, camera_mask=mask)
    assert (done.new, done.failures) == (2, ())


@pytest.mark.weights
def test_a_network_finds_as_many_keypoints_outside_the_mask(models: Path, photos: Path) -> None:
    (ref, _) = crawl(photos).images
    extractor = Extractor(models, Settings(max_keypoints=LIMIT))
    photo = decode(ref, 0)
    (plain,) = extractor.extract([photo])
    mask = np.arange(SIZE[0])[None].repeat(SIZE[1], 0) >= SIZE[0] // 2
    (masked,) = extractor.extract([replace(photo, masks=(mask,))])
    same = plain.keypoints[plain.keypoints[:, 0] >= SIZE[0] / 2]
    assert len(same) < len(masked.keypoints) <= LIMIT
    assert (masked.keypoints[:, 0] >= SIZE[0] / 2).all()
    np.testing.assert_array_equal(masked.keypoints[: len(same)], same)
