"""Turned photos have the features and matches of the upright ones, at the places where the file has the pixels."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lgbatch.config import Settings
from lgbatch.features.extract import extract
from lgbatch.features.orient import orient
from lgbatch.matching.lightglue import Matcher
from lgbatch.photos.coordinates import angles_to_upright, to_upright, upright_size
from lgbatch.photos.crawl import crawl
from lgbatch.photos.masks import crawl_with_masks
from lgbatch.pipelines.summary import Summary
from lgbatch.storage.features import FeatureStore
from lgbatch.types import ORIENTATIONS, ByteArray, Features
from tests.helpers.oriented import read, save

NAMES = {orientation: f"{orientation}.png" for orientation in ORIENTATIONS}
SIZE = (322, 240)


def photos(folder: Path, upright: ByteArray) -> Path:
    """Write a photo in all eight orientations."""
    for orientation, name in NAMES.items():
        save(folder / name, upright, orientation)
    return folder


def extracted(folder: Path, path: Path, models: Path, settings: Settings) -> dict[int, Features]:
    """Extract the photos of all orientations."""
    done = extract(folder, path, models=models, settings=settings)
    assert not done.failures
    with FeatureStore(path) as store:
        assert [store.orientation(name) for name in NAMES.values()] == list(ORIENTATIONS)
        return {orientation: store.read(name) for orientation, name in NAMES.items()}


def assert_maps_to(found: Features, upright: Features) -> None:
    """The features are those of the upright photo, whose keypoints have other coordinates in the file."""
    assert upright_size(found.image_size, found.orientation) == upright.image_size
    mapped = to_upright(found.keypoints, found.image_size, found.orientation)
    np.testing.assert_allclose(mapped, upright.keypoints, atol=1e-3)
    np.testing.assert_array_equal(found.descriptors, upright.descriptors)
    np.testing.assert_array_equal(found.scores, upright.scores)
    if upright.oris is not None and found.oris is not None:
        angles = angles_to_upright(found.oris, found.orientation)
        np.testing.assert_allclose(np.exp(1j * angles), np.exp(1j * upright.oris), atol=1e-5)
        np.testing.assert_array_equal(found.scales, upright.scales)


@pytest.mark.weights
@pytest.mark.parametrize("extractor", ["disk", "sift"])
def test_features_and_matches_are_those_of_the_upright_photo(
    models: Path, gallery: Path, tmp_path: Path, extractor: str
) -> None:
    settings = Settings(extractor=extractor, max_keypoints=300, resize=250, threads=1, precision="fp32")
    first = extracted(photos(tmp_path / "a", read(gallery / "view_00.jpg", SIZE)), tmp_path / "a.h5", models, settings)
    second = extracted(photos(tmp_path / "b", read(gallery / "view_01.jpg", SIZE)), tmp_path / "b.h5", models, settings)
    assert len(first[1].keypoints) > 100
    matcher = Matcher(models, settings) if extractor == "disk" else None
    expected = matcher and matcher.match_with_trace(*map(matcher.encode, (first[1], second[1]))).matches
    for orientation in ORIENTATIONS:
        assert_maps_to(first[orientation], first[1])
        assert_maps_to(second[orientation], second[1])
        if matcher and expected:
            pair = first[orientation], second[9 - orientation]
            matches = matcher.match_with_trace(*map(matcher.encode, pair)).matches
            assert len(matches.indices) > 50
            np.testing.assert_array_equal(matches.indices, expected.indices)
            np.testing.assert_allclose(matches.scores, expected.scores, atol=1e-3)


def test_masks_and_alpha_belong_to_the_pixels_of_the_file(gallery: Path, tmp_path: Path) -> None:
    upright = read(gallery / "view_00.jpg", SIZE)
    alpha = np.full(upright.shape[:2], 255, np.uint8)
    alpha[:, :120] = 0
    mask = np.full_like(alpha, 255)
    mask[:100] = 0
    folder = photos(tmp_path / "photos", np.dstack([upright, alpha]))
    photos(tmp_path / "masks", mask)
    settings = Settings(extractor="sift", max_keypoints=100, masks=str(tmp_path / "masks"))
    assert not extract(folder, tmp_path / "features.h5", models=tmp_path, settings=settings).failures
    with FeatureStore(tmp_path / "features.h5") as store:
        expected = store.read(NAMES[1])
        assert len(expected.keypoints) > 20 and (expected.keypoints >= (119.5, 99.5)).all()
        for name in NAMES.values():
            assert_maps_to(store.read(name), expected)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
def test_the_orientation_is_that_of_the_tag(tmp_path: Path, suffix: str) -> None:
    for orientation in ORIENTATIONS:
        save(tmp_path / f"{orientation}.{suffix}", np.zeros((4, 6, 3), np.uint8), orientation)
    save(tmp_path / f"9.{suffix}", np.zeros((4, 6, 3), np.uint8), 9)  # no such orientation
    Image.new("RGB", (6, 4)).save(tmp_path / f"none.{suffix}")
    (tmp_path / f"text.{suffix}").write_text("no photo")
    crawled = crawl(tmp_path)
    orientations = {ref.path.stem: ref.orientation for ref in orient(crawled, tmp_path / "out", Settings())[0].images}
    assert orientations == {str(i): i for i in ORIENTATIONS} | {"9": 1, "none": 1, "text": 1}
    assert orient(crawled, tmp_path / "none", Settings(rotation="none"))[0] == crawled


def test_masks_stay_with_the_photos(tmp_path: Path) -> None:
    for folder in "photos", "masks":
        save(tmp_path / folder / "a.png", np.zeros((4, 6, 3), np.uint8), 6)
    crawled = crawl_with_masks(tmp_path / "photos", str(tmp_path / "masks"), "")
    (ref,) = orient(crawled, tmp_path / "out", Settings(rotation="exif"))[0].images
    assert (ref.orientation, ref.masks) == (6, (tmp_path / "masks" / "a.png",))


def test_photos_that_keep_features_of_another_orientation_are_told(gallery: Path, tmp_path: Path) -> None:
    folder, store_path = photos(tmp_path / "photos", read(gallery / "view_00.jpg", SIZE)), tmp_path / "features.h5"
    settings = Settings(extractor="sift", max_keypoints=20, rotation="none")
    extract(folder, store_path, models=tmp_path, settings=settings)
    kept = Settings(extractor="sift", max_keypoints=20, on_change="keep")
    for _ in range(2):  # the second run skips the stage
        crawled, oriented = orient(crawl(folder), tmp_path, kept)
        done = extract(folder, store_path, models=tmp_path, settings=kept, crawled=crawled)
        assert done.turned_otherwise == 3  # codes 3, 6 and 8
    assert done.new == 0 and oriented.turned_by_exif == 7
    with FeatureStore(store_path) as store:
        assert [store.orientation(name) for name in NAMES.values()] == [1, 2, 1, 4, 5, 1, 7, 1]
    summary = Summary(kept)
    summary.add_oriented(oriented)
    summary.add_extracted(done)
    assert "orientation says; 3 photos keep the features from before (--on-change keep)\n" in summary.format()
    recomputed = extract(folder, store_path, models=tmp_path, settings=replace(kept, on_change="recompute"))
    assert recomputed.turned_otherwise == 0 and recomputed.new == 3
