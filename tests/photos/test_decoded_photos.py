"""Photos that the orient stage has decoded are not decoded again for extraction."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lgbatch.config import Settings
from lgbatch.errors import ItemError
from lgbatch.features import extract as stage
from lgbatch.features.extract import extract
from lgbatch.features.orient import orient
from lgbatch.photos.crawl import crawl
from lgbatch.photos.decode import DecodedPhotos, decode
from lgbatch.storage.features import FeatureStore
from lgbatch.types import ImageRef
from tests.helpers.oriented import read

SIZE = (320, 240)
MOST = 90 * 120 * 3


def ref(folder: Path, name: str, mode: str = "RGB") -> ImageRef:
    rng = np.random.default_rng(len(name))
    Image.fromarray(rng.integers(0, 256, (*SIZE[::-1], len(mode)), np.uint8), mode).save(folder / name)
    return ImageRef(name, folder / name)


def test_a_photo_is_taken_once_as_decoded(tmp_path: Path) -> None:
    decoded, photo = DecodedPhotos(), ref(tmp_path, "a.png")
    kept = decoded.decode(photo, 120, 1, MOST)
    assert decoded.take(photo, 120) is kept and decoded.take(photo, 120) is None
    np.testing.assert_array_equal(kept.pixels, decode(photo, 120).pixels)


@pytest.mark.parametrize("change", ["resize", "orientation", "file", "gone", "cleared"])
def test_a_photo_that_extraction_needs_otherwise_is_not_taken(tmp_path: Path, change: str) -> None:
    decoded, photo = DecodedPhotos(), ref(tmp_path, "a.png")
    decoded.decode(photo, 120, 1, MOST)
    if change == "file":
        os.utime(photo.path, ns=(0, 0))
    elif change == "gone":
        photo.path.unlink()
    elif change == "cleared":
        decoded.clear()
    wanted = replace(photo, orientation=3) if change == "orientation" else photo
    assert decoded.take(wanted, 100 if change == "resize" else 120) is None


def test_the_memory_for_kept_photos_is_limited(tmp_path: Path) -> None:
    decoded, photos = DecodedPhotos(), [ref(tmp_path, name) for name in ("a.png", "bb.png")]
    for photo in photos:
        decoded.decode(photo, 120, 1, MOST)
    assert decoded.take(photos[1], 120) is None and decoded.take(photos[0], 120)
    decoded.decode(photos[1], 120, 1, MOST)
    assert decoded.take(photos[1], 120)
    decoded.decode(ref(tmp_path, "masked.png", "RGBA"), 120, 1, MOST)  # the mask has the size of the file
    assert decoded.take(ImageRef("masked.png", tmp_path / "masked.png"), 120) is None


def test_a_photo_that_is_gone_cannot_be_decoded(tmp_path: Path) -> None:
    with pytest.raises(ItemError, match="cannot be read"):
        DecodedPhotos().decode(ImageRef("a.png", tmp_path / "a.png"), 120, 1, MOST)


def test_extraction_decodes_only_what_orient_turned(
    gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(5):
        view = Image.fromarray(read(gallery / f"view_{number:02d}.jpg", (640, 480)))
        (view.rotate(180) if number == 2 else view).save(folder / f"{number}.png")
    settings = Settings(extractor="sift", max_keypoints=50, resize=400)
    again: list[str] = []

    def count(photo: ImageRef, *arguments: float) -> object:
        again.append(photo.name)
        return decode(photo, *arguments)

    monkeypatch.setattr(stage, "decode", count)
    crawled, oriented = orient(crawl(folder), tmp_path / "auto", settings)
    assert oriented.turned_by_neighbours == 1
    extract(folder, tmp_path / "auto" / "features.h5", models=tmp_path, settings=settings, crawled=crawled)
    assert again == ["2.png"]
    extract(folder, tmp_path / "none" / "features.h5", models=tmp_path, settings=replace(settings, rotation="none"))
    assert len(again) == 6
    with (
        FeatureStore(tmp_path / "auto" / "features.h5") as auto,
        FeatureStore(tmp_path / "none" / "features.h5") as none,
    ):
        for number in (0, 1, 3, 4):
            first, second = (store.read(f"{number}.png") for store in (auto, none))
            np.testing.assert_array_equal(first.keypoints, second.keypoints)
            np.testing.assert_array_equal(first.descriptors, second.descriptors)
