"""SIFT features against LightGlue's own SIFT, and LightGlue for it, with random weights, against the published one."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from lgbatch.bench import published
from lgbatch.config import Settings
from lgbatch.errors import ItemError
from lgbatch.features.sift import CONTRAST, EDGE, LAYERS, SIGMA, SPARE, SiftExtractor
from lgbatch.matching.lightglue import positions
from lgbatch.storage.features import FeatureStore
from lgbatch.types import Features, Photo
from tests.helpers import upstream

SIZES = [(64, 48), (333, 500), (101, 37), (640, 427)]


def features(folder: Path, size: tuple[int, int], most: int, number: int = 0) -> tuple[Features, np.ndarray]:
    image = cv2.imread(str(sorted(folder.glob("*.jpg"))[number]))
    rgb = np.ascontiguousarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA)[..., ::-1])
    extractor = SiftExtractor(Settings(extractor="sift", max_keypoints=most, threads=1))
    return extractor.extract([Photo("a", rgb, size)])[0], cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)


@pytest.mark.parametrize("size", SIZES)
def test_features_are_those_of_lightglues_sift(gallery: Path, size: tuple[int, int]) -> None:
    found, grey = features(gallery, size, 300)
    network = published.module("sift").SIFT(max_num_keypoints=SPARE * 300)
    network.sift = cv2.SIFT_create(SPARE * 300, LAYERS, CONTRAST, EDGE, SIGMA, enable_precise_upscale=True)
    image = torch.from_numpy((grey + 0.5).astype(np.float32) / 255)[None, None]  # it cuts off fractions
    told = {key: value[0].numpy() for key, value in network.forward({"image": image}).items()}
    best = np.argsort(-told["keypoint_scores"], kind="stable")[:300]
    assert len(found.keypoints) == len(best) > 0
    np.testing.assert_array_equal(found.scores, told["keypoint_scores"][best])
    assert found.scales is not None and found.oris is not None
    mine = np.column_stack([found.keypoints, found.scales, found.oris, found.descriptors])
    names = ("keypoints", "scales", "oris", "descriptors")
    theirs = np.column_stack([told[name][best] for name in names])
    order, other = np.lexsort(mine.T[3::-1]), np.lexsort(theirs.T[3::-1])
    np.testing.assert_allclose(mine[order], theirs[other], atol=1e-4)


def test_a_blob_is_where_it_is() -> None:
    y, x = np.mgrid[:120, :160]
    blob = 60 + 150 * np.exp(-((x - 70.3) ** 2 + (y - 50.6) ** 2) / 32)
    pixels = np.repeat(blob.round().astype(np.uint8)[..., None], 3, 2)
    (found,) = SiftExtractor(Settings(extractor="sift", threads=1)).extract([Photo("a", pixels, (160, 120))])
    np.testing.assert_allclose(found.keypoints[0], [70.3, 50.6], atol=0.05)


def test_photos_without_keypoints_have_none() -> None:
    extractor = SiftExtractor(Settings(extractor="sift", threads=1))
    for shape in ((1, 1, 3), (5, 4, 3), (40, 30, 3)):
        (found,) = extractor.extract([Photo("a", np.full(shape, 99, np.uint8), shape[1::-1])])
        assert found.descriptors.shape == (0, 128) and found.keypoints.shape == (0, 2)


def test_scales_and_orientations_are_stored_and_missed(gallery: Path, tmp_path: Path) -> None:
    found, _ = features(gallery, (200, 150), 50)
    with FeatureStore(tmp_path / "features.h5", append={"extractor": "sift"}) as store:
        store.write("a.jpg", found)
        store.write("b.jpg", Features(found.keypoints, found.scores, found.descriptors, found.image_size))
        store.commit()
        read, without = store.read("a.jpg"), store.read("b.jpg")
    np.testing.assert_array_equal(positions(read, "sift"), positions(found, "sift"))
    assert positions(read, "sift").shape == (len(found.keypoints), 4)
    assert without.scales is None and positions(without, "disk").shape[1] == 2
    with pytest.raises(ItemError, match="extract it again with --extractor sift"):
        positions(without, "sift")


def test_upstream_takes_scales_and_orientations(gallery: Path) -> None:
    found, _ = features(gallery, (200, 150), 50)
    assert {"scales", "oris"} <= upstream.published.tensors(found).keys()
