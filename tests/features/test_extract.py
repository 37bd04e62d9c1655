"""The extract stage: batches, failures, repeated runs, and the pixels of keypoints."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from lgbatch.config import Settings
from lgbatch.errors import StoreError
from lgbatch.features.extract import extract, group_by_shape
from lgbatch.features.network import Extractor
from lgbatch.photos.crawl import crawl
from lgbatch.photos.decode import decode
from lgbatch.storage.features import FeatureStore
from lgbatch.types import Failure, Photo


def photo(name: str, height: int, width: int) -> Photo:
    return Photo(name, np.zeros((height, width, 3), np.uint8), (width, height))


def test_batches_have_one_shape_and_no_photo_is_lost() -> None:
    shapes = [(4, 6), (6, 4), (4, 6), (5, 5), (4, 6), (6, 4), (4, 6)]
    photos: list[Photo | Failure] = [photo(str(i), *shape) for i, shape in enumerate(shapes)]
    photos.insert(2, Failure("extract", "bad", "reason"))
    batches = list(group_by_shape(photos, 2))
    assert Failure("extract", "bad", "reason") in batches
    photo_batches = [batch for batch in batches if not isinstance(batch, Failure)]
    assert all(len({p.pixels.shape for p in batch}) == 1 and len(batch) <= 2 for batch in photo_batches)
    assert sorted(p.name for batch in photo_batches for p in batch) == [str(i) for i in range(7)]


def test_few_photos_wait_for_a_batch_however_many_shapes_there_are() -> None:
    consumed = 0

    def photos() -> Iterator[Photo]:
        nonlocal consumed
        for i in range(100):
            consumed += 1
            yield photo(str(i), 5 + i, 5)

    yielded = 0
    for _ in group_by_shape(photos(), 2):
        yielded += 1
        assert consumed - yielded <= 4 * 2 + 1
    assert yielded == 100


@pytest.mark.weights
def test_bad_photos_are_failures_and_unusual_ones_are_extracted(models: Path, gallery: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    nested = images / "day 1" / "north side"
    nested.mkdir(parents=True)
    view = cv2.resize(cv2.imread(str(gallery / "view_00.jpg")), (320, 240), interpolation=cv2.INTER_AREA)
    encoded = cv2.imencode(".jpg", view)[1].tobytes()
    (nested / "my photo 1.JPG").write_bytes(encoded)
    (images / "truncated.jpg").write_bytes(encoded[: len(encoded) // 2])
    (images / "text.jpg").write_text("not a photo")
    cv2.imwrite(str(images / "dot.png"), np.zeros((1, 1, 3), np.uint8))
    cv2.imwrite(str(images / "flat.png"), np.full((100, 120, 3), 128, np.uint8))
    cv2.imwrite(str(images / "deep.png"), view.astype(np.uint16) * 257)
    cv2.imwrite(str(images / "alpha.png"), cv2.cvtColor(view, cv2.COLOR_BGR2BGRA))
    cv2.imwrite(str(images / "grey.tif"), cv2.cvtColor(view, cv2.COLOR_BGR2GRAY))
    settings = Settings(extractor="disk", max_keypoints=200)

    done = extract(images, tmp_path / "features.h5", models=models, settings=settings)

    assert sorted(failure.name for failure in done.failures) == ["text.jpg", "truncated.jpg"]
    assert (done.images, done.new) == (8, 6)
    with FeatureStore(tmp_path / "features.h5") as store:
        counts = {name: store.count(name) for name in store.names()}
        assert counts["dot.png"] == 0
        assert counts.pop("flat.png") < 20  # only the corners of the photo
        with_keypoints = {"alpha.png", "day 1/north side/my photo 1.JPG", "deep.png", "grey.tif"}
        assert {name for name, count in counts.items() if count} == with_keypoints
        assert done.keypoints == sum(counts.values()) + store.count("flat.png")
        assert store.image_size("day 1/north side/my photo 1.JPG") == (320, 240)
        assert store.image_folder == images
        # Both files hold the same pixels, one in 16 bits, one with an opaque alpha channel.
        deep, alpha = store.read("deep.png"), store.read("alpha.png")
        np.testing.assert_array_equal(deep.keypoints, alpha.keypoints)


@pytest.mark.weights
def test_a_second_run_extracts_only_new_photos(models: Path, gallery: Path, tmp_path: Path) -> None:
    images, path = tmp_path / "images", tmp_path / "features.h5"
    images.mkdir()
    view = cv2.resize(cv2.imread(str(gallery / "view_00.jpg")), (320, 240), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(images / "a.png"), view)
    settings = Settings(max_keypoints=100)
    assert extract(images, path, models=models, settings=settings).new == 1
    before = path.read_bytes()
    assert extract(images, path, models=models, settings=settings).new == 0
    assert path.read_bytes() == before
    cv2.imwrite(str(images / "b.png"), view[:, ::-1])
    assert extract(images, path, models=models, settings=settings).new == 1
    with pytest.raises(StoreError, match=r"max_keypoints 100 \(now 200\)"):
        extract(images, path, models=models, settings=Settings(max_keypoints=200))


@pytest.mark.weights
def test_keypoints_are_in_pixels_of_the_original_photo(models: Path, gallery: Path, tmp_path: Path) -> None:
    whole = cv2.imread(str(gallery / "view_03.jpg"))
    cv2.imwrite(str(tmp_path / "big.png"), cv2.resize(whole, (1000, 750), interpolation=cv2.INTER_CUBIC))
    (ref,) = crawl(tmp_path).images
    extractor = Extractor(models, Settings(extractor="disk", resize=500, max_keypoints=300))
    half = decode(ref, 500)
    (features,) = extractor.extract([half])
    assert features.image_size == (1000, 750)
    # The centre of pixel k of the half-size photo is at 2 k + 0.5.
    (of_half,) = extractor.extract([Photo(half.name, half.pixels, (500, 375))])
    np.testing.assert_allclose(features.keypoints, 2 * of_half.keypoints + 0.5, atol=2e-3)
    assert features.keypoints[:, 0].max() > 600
    np.testing.assert_allclose(np.linalg.norm(features.descriptors, axis=1), 1, atol=1e-4)


def textured(folder: Path, name: str, alpha: bool = False) -> None:
    folder.mkdir(exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 4 if alpha else 3), np.uint8)
    pixels = cv2.resize(pixels, (640, 480), interpolation=cv2.INTER_CUBIC)
    if alpha:
        pixels[..., 3] = 255
        pixels[:, :320, 3] = 0
    cv2.imwrite(str(folder / name), pixels)


SIFT = Settings(extractor="sift", max_keypoints=200)


def test_no_keypoints_lie_where_alpha_is_0_or_the_mask_is_black(tmp_path: Path) -> None:
    images, path = tmp_path / "images", tmp_path / "features.h5"
    textured(images, "a.png", alpha=True)
    extract(images, path, models=tmp_path, settings=SIFT)
    with FeatureStore(path) as store:
        x, y = store.read("a.png").keypoints.T
    assert len(x) == 200 and x.min() > 319 and y.min() < 100
    mask = np.full((480, 640), 255, np.uint8)
    mask[:240] = 0
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    masked = tmp_path / "masked" / "features.h5"
    settings = Settings(extractor="sift", max_keypoints=200, camera_mask=str(tmp_path / "mask.png"))
    extract(images, masked, models=tmp_path, settings=settings)
    with FeatureStore(masked) as store:
        x, y = store.read("a.png").keypoints.T
    assert len(x) and x.min() > 319 and y.min() > 239


def test_features_record_the_decoding_and_older_ones_stay_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, path = tmp_path / "images", tmp_path / "features.h5"
    textured(images, "a.png")
    with monkeypatch.context() as older:
        older.setattr("lgbatch.features.extract.DECODING", {})
        extract(images, path, models=tmp_path, settings=SIFT)
    textured(images, "b.png")
    assert extract(images, path, models=tmp_path, settings=SIFT).new == 1
    with FeatureStore(path) as store:
        decodings = [entry["by"].get("jpeg") for entry in store.provenances.values()]
    assert sorted(map(str, decodings)) == ["1/2 if shrunk 4 times, 1/4 if shrunk 8 times", "None"]


@pytest.mark.weights
def test_keypoints_at_whole_pixels_of_earlier_versions_are_not_mixed_with_new_ones(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, path, settings = tmp_path / "images", tmp_path / "features.h5", Settings(extractor="disk", max_keypoints=9)
    textured(images, "a.png")
    with monkeypatch.context() as earlier:
        earlier.setattr("lgbatch.features.network.SUBPIXEL_FITS", {})
        extract(images, path, models=models, settings=settings)
    textured(images, "b.png")
    with pytest.raises(StoreError, match=r"1 photo was extracted with subpixel_fit None \(now quadratic\)"):
        extract(images, path, models=models, settings=settings)
    assert extract(images, path, models=models, settings=replace(settings, on_change="recompute")).new == 2
    with FeatureStore(path) as store:
        assert [entry["by"]["subpixel_fit"] for entry in store.provenances.values()] == ["quadratic"]
