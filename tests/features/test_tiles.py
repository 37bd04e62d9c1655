"""Photos that do not fit in the memory: their tiles, and the keypoints of tiles against those of whole photos."""

import subprocess
import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from lgbatch.config import Settings
from lgbatch.errors import OutOfMemory
from lgbatch.export.models import ensure_models
from lgbatch.features import memory, network, tiles
from lgbatch.features.extract import extract
from lgbatch.features.network import Extractor
from lgbatch.pipelines.summary import Summary
from lgbatch.storage.features import FeatureStore
from lgbatch.types import BoolArray, Features, Photo
from tests.helpers import random_weights

PLENTY, FOR_512 = 1 << 60, 3 * 10**8
"""Bytes of memory for any photo, and for SuperPoint on tiles of 512 x 512 pixels, but not 1024 x 1024."""


class Maxima:
    """A model that finds the brightest red pixels of 5 x 5, and describes them by their green and blue."""

    device, weights = "cpu", "none"
    session = SimpleNamespace(widths=[2, None, 2], inputs=["image", "max_keypoints"])

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def run(self, feed: Mapping[str, Any]) -> list[Any]:
        self.shapes.append(feed["image"].shape[2:])
        red, green, blue = feed["image"][0]
        y, x = np.nonzero((red == cv2.dilate(red, np.ones((5, 5)))) & (red > 0.5))
        best = np.lexsort((x, y, -red[y, x]))[: int(feed["max_keypoints"])]
        y, x = y[best], x[best]
        keypoints = np.stack([x, y], 1).astype(np.float32)
        return [keypoints[None], red[y, x][None], np.stack([green[y, x], blue[y, x]], 1)[None], np.array([len(x)])]


def give_memory(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: size)


def noise(width: int, height: int, *masks: BoolArray) -> Photo:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return Photo("noise", pixels, (2 * width, 2 * height), masks)


def textured(width: int, height: int) -> Photo:
    """A photo of blobs of several sizes."""
    rng, pixels = np.random.default_rng(0), np.zeros((height, width, 3), np.float32)
    for scale in 4, 8, 16, 64:
        coarse = rng.random((height // scale, width // scale, 3), np.float32)
        pixels += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return Photo("textured", np.clip(pixels * 64, 0, 255).astype(np.uint8), (width, height))


def in_tiles_and_whole(
    monkeypatch: pytest.MonkeyPatch, models: Path, photo: Photo, side: int, **settings: Any
) -> tuple[Features, Features]:
    extracted = []
    for tile_side in side, 0:
        monkeypatch.setattr(memory.MemoryBudget, "tile_side", lambda *_, tile_side=tile_side: tile_side)
        extracted += Extractor(models, Settings(**settings)).extract([photo])
    assert [features.tile_side for features in extracted] == [side, 0]
    return extracted[0], extracted[1]


def assert_equal(actual: Features, expected: Features) -> None:
    for name in "keypoints", "scores", "descriptors":
        np.testing.assert_array_equal(getattr(actual, name), getattr(expected, name))


@pytest.mark.parametrize("side", tiles.SIDES)
@pytest.mark.parametrize("halo", tiles.HALO.values())
@pytest.mark.parametrize("length", [5, 511, 512, 513, 700, 1025, 2049, 6000, 8001, 30000])
def test_cores_divide_an_axis_and_lie_inside_their_tiles(length: int, halo: int, side: int) -> None:
    spans = list(tiles.spans(length, side, halo))
    assert spans[0].start == spans[0].core_start == 0 and spans[-1].end == spans[-1].core_end == length
    assert len({span.end - span.start for span in spans}) == 1
    for span in spans:
        assert span.end - span.start <= side
        assert span.start % tiles.STRIDE == 0 and (length - span.end + span.start) % tiles.STRIDE == 0
    for one, following in pairwise(spans):
        assert one.core_end == following.core_start
        assert one.end - one.core_end >= halo and following.core_start - following.start >= halo


@pytest.mark.parametrize("max_keypoints", [200, 60_000])
@pytest.mark.parametrize("masked", [False, True])
def test_tiles_give_the_keypoints_of_the_photo(
    monkeypatch: pytest.MonkeyPatch, max_keypoints: int, masked: bool
) -> None:
    model, mask = Maxima(), np.ones((150, 200), bool)
    mask[40:110, 60:] = False
    monkeypatch.setattr(network, "open_extractor", lambda *_: model)
    extractor = Extractor(Path(), Settings(extractor="superpoint", max_keypoints=max_keypoints))
    photo = noise(1111, 830, *[mask] * masked)
    give_memory(monkeypatch, FOR_512)
    (in_tiles,) = extractor.extract([photo])
    assert len(model.shapes) == 6 and max(max(shape) for shape in model.shapes) <= 512
    give_memory(monkeypatch, PLENTY)
    (whole,) = extractor.extract([photo])
    assert model.shapes[-1] == (830, 1111)
    assert (in_tiles.tile_side, whole.tile_side) == (512, 0)
    assert len(whole.keypoints) == 200 if max_keypoints == 200 else len(whole.keypoints) > 10_000
    assert_equal(in_tiles, whole)  # most scores have equals: these are in raster order in both


def test_the_largest_tiles_that_fit_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    check = memory.MemoryBudget("superpoint")
    for available, side in ((6 * 10**9, 2048), (10**9, 1024), (FOR_512, 512)):
        give_memory(monkeypatch, available)
        assert check.tile_side(8000, 6000) == side
    assert check.tile_side(300, 500) == 0
    give_memory(monkeypatch, 10**8)
    with pytest.raises(OutOfMemory, match=r"superpoint needs about .* for 8000 x 6000 pixels"):
        check.tile_side(8000, 6000)


def test_photos_of_a_batch_are_extracted_in_tiles_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "open_extractor", lambda *_: Maxima())
    give_memory(monkeypatch, FOR_512)
    photos = [noise(1111, 830)] * 2
    first, second = Extractor(Path(), Settings(extractor="superpoint")).extract(photos)
    assert first.tile_side == second.tile_side == 512
    assert_equal(first, second)


def test_weak_keypoints_of_a_tile_without_strong_ones_are_left_out_as_in_the_whole_photo() -> None:
    def scores(extractor: str, *of_tiles: float) -> list[float]:
        left = iter(of_tiles)

        def run(_tile: Any, _count: int) -> list[Any]:
            middle = np.full((1, 1, 2), 256, np.float32)
            return [middle, np.full((1, 1), next(left), np.float32), np.zeros((1, 1, 8), np.float32), np.array([1])]

        found = tiles.extract_in_tiles(run, np.zeros((512, 736, 3), np.uint8), 512, extractor, 10)[1]
        return [round(float(score), 3) for score in found[0]]

    assert scores("aliked-n16", 0.1, 0.5) == [0.5]
    assert scores("aliked-n16", 0.1, 0.15) == [0.15, 0.1]
    assert scores("disk", 0.1, 0.5) == [0.5, 0.1]


def test_scores_that_do_not_fall_are_averaged() -> None:
    falling = np.linspace(1, 0, 500, dtype=np.float32)
    np.testing.assert_array_equal(tiles.merits(falling), falling)
    noisy = falling + np.random.default_rng(0).normal(0, 0.1, 500).astype(np.float32)
    merits = tiles.merits(noisy)
    assert (np.diff(merits) <= 0).all()
    assert np.abs(merits - falling)[25:-25].max() < 0.06


def test_superpoint_finds_the_same_keypoints_in_tiles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    random_weights.models(tmp_path, "superpoint", "extractor")
    in_tiles, whole = in_tiles_and_whole(
        monkeypatch, tmp_path, textured(900, 700), 512, extractor="superpoint", max_keypoints=500
    )
    assert share_of_same(in_tiles, whole, 0.1) > 0.99


@pytest.mark.weights
@pytest.mark.parametrize(("extractor", "share"), [("disk", 0.7), ("aliked-n16", 0.8), ("xfeat", 0.7)])
def test_other_networks_find_mostly_the_same_keypoints_in_tiles(
    monkeypatch: pytest.MonkeyPatch, models: Path, extractor: str, share: float
) -> None:
    ensure_models(models, extractor, ["extractor"])
    in_tiles, whole = in_tiles_and_whole(
        monkeypatch, models, textured(1001, 750), 512, extractor=extractor, max_keypoints=1000
    )
    assert len(in_tiles.keypoints) > 0.9 * len(whole.keypoints) > 0
    assert share_of_same(in_tiles, whole, 0.5) > share


def share_of_same(actual: Features, expected: Features, pixels: float) -> float:
    """The share of expected keypoints with an actual one closer than some pixels."""
    distances = np.linalg.norm(expected.keypoints[:, None] - actual.keypoints[None], axis=2)
    return float((distances.min(1) < pixels).mean())


def test_features_in_tiles_are_told_recorded_and_stay_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "open_extractor", lambda *_: Maxima())
    monkeypatch.setattr("lgbatch.features.extract.model_path", lambda *_: tmp_path / "model")
    images, path = tmp_path / "images", tmp_path / "features.h5"
    images.mkdir()
    settings = Settings(extractor="superpoint", resize=0)
    for name, width in (("large.png", 700), ("small.png", 64)):
        cv2.imwrite(str(images / name), noise(width, 600 if width > 64 else 48).pixels)
    give_memory(monkeypatch, FOR_512)
    result = extract(images, path, models=tmp_path, settings=settings)
    assert (result.new, result.in_tiles, result.failures) == (2, 1, ())
    summary = Summary(settings)
    summary.add_extracted(result)
    assert "in tiles    1 photo: too large for the memory as a whole" in summary.format()
    assert extract(images, path, models=tmp_path, settings=settings).in_tiles == 1
    give_memory(monkeypatch, PLENTY)
    cv2.imwrite(str(images / "other.png"), noise(700, 600).pixels)
    again = extract(images, path, models=tmp_path, settings=settings)
    assert (again.new, again.in_tiles) == (1, 1)
    with FeatureStore(path) as store:
        sides = {
            name: store.provenances[store.record(name).fingerprint]["by"].get("tile_side") for name in store.names()
        }
    assert sides == {"large.png": 512, "other.png": None, "small.png": None}


def test_a_photo_that_failed_for_want_of_memory_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "open_extractor", lambda *_: Maxima())
    monkeypatch.setattr("lgbatch.features.extract.model_path", lambda *_: tmp_path / "model")
    images, path = tmp_path / "images", tmp_path / "features.h5"
    images.mkdir()
    cv2.imwrite(str(images / "a.png"), noise(700, 600).pixels)
    settings = Settings(extractor="superpoint", resize=0)
    give_memory(monkeypatch, 10**7)
    for _ in range(2):
        (failure,) = extract(images, path, models=tmp_path, settings=settings).failures
        assert failure.temporary and "for 700 x 600 pixels" in failure.reason
    give_memory(monkeypatch, PLENTY)
    result = extract(images, path, models=tmp_path, settings=settings)
    assert (result.new, result.failures, result.finished_already) == (1, (), False)
    assert extract(images, path, models=tmp_path, settings=settings).finished_already


@pytest.mark.weights
def test_a_second_photo_of_the_same_size_takes_no_more_memory(models: Path) -> None:
    ensure_models(models, "xfeat", ["extractor"])
    program = (
        "import sys, numpy as np\nfrom pathlib import Path\nfrom lgbatch.features.network import *\n"
        "from lgbatch.runtime.environment import peak_memory_mb\n"
        "extractor = Extractor(Path(sys.argv[1]), Settings(extractor='xfeat'))\n"
        "photo = Photo('', np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), np.uint8), (1024, 1024))\n"
        "extractor.extract([photo])\nonce = peak_memory_mb()\n"
        "for _ in range(3): extractor.extract([photo])\nprint(peak_memory_mb() - once)\n"
    )
    process = subprocess.run([sys.executable, "-c", program, models], capture_output=True, text=True, check=True)
    assert float(process.stdout) < 30
