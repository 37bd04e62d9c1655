"""SIFT features against those of LightGlue's own SIFT, and the matcher's input from them."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from lgbatch.bench import published
from lgbatch.config import Settings
from lgbatch.errors import ItemError
from lgbatch.features.sift import (
    CONTRAST_THRESHOLD,
    EDGE_THRESHOLD,
    OCTAVE_LAYERS,
    OVERSAMPLING,
    SIGMA,
    SiftExtractor,
)
from lgbatch.matching.lightglue import keypoint_input
from lgbatch.storage.features import FeatureStore
from lgbatch.types import Features, Photo
from tests.helpers import upstream

SIZES = [(64, 48), (333, 500), (101, 37), (640, 427)]


def sift_features(folder: Path, size: tuple[int, int], max_keypoints: int) -> tuple[Features, np.ndarray]:
    """Features of the first photo, resized to (width, height), and its gray pixels."""
    image = cv2.imread(str(sorted(folder.glob("*.jpg"))[0]))
    rgb = np.ascontiguousarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA)[..., ::-1])
    extractor = SiftExtractor(Settings(extractor="sift", max_keypoints=max_keypoints, threads=1))
    return extractor.extract([Photo("a", rgb, size)])[0], cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)


@pytest.mark.parametrize("size", SIZES)
def test_features_equal_those_of_lightglues_sift(gallery: Path, size: tuple[int, int]) -> None:
    ours, gray = sift_features(gallery, size, 300)
    network = published.module("sift").SIFT(max_num_keypoints=OVERSAMPLING * 300)
    network.sift = cv2.SIFT_create(
        OVERSAMPLING * 300, OCTAVE_LAYERS, CONTRAST_THRESHOLD, EDGE_THRESHOLD, SIGMA, enable_precise_upscale=True
    )
    image = torch.from_numpy((gray + 0.5).astype(np.float32) / 255)[None, None]  # + 0.5, as it truncates to uint8
    theirs = {key: value[0].numpy() for key, value in network.forward({"image": image}).items()}
    best = np.argsort(-theirs["keypoint_scores"], kind="stable")[:300]
    assert len(ours.keypoints) == len(best) > 0
    np.testing.assert_array_equal(ours.scores, theirs["keypoint_scores"][best])
    assert ours.scales is not None and ours.oris is not None
    our_table = np.column_stack([ours.keypoints, ours.scales, ours.oris, ours.descriptors])
    names = ("keypoints", "scales", "oris", "descriptors")
    their_table = np.column_stack([theirs[name][best] for name in names])
    their_table[:, :2] = np.rint(their_table[:, :2] * 1024) / 1024  # as coordinates.py rounds keypoints
    our_order, their_order = np.lexsort(our_table.T[3::-1]), np.lexsort(their_table.T[3::-1])
    ours_sorted, theirs_sorted = our_table[our_order], their_table[their_order]
    np.testing.assert_allclose(ours_sorted[:, :2], theirs_sorted[:, :2], atol=1.1 / 1024)
    np.testing.assert_allclose(ours_sorted[:, 2:], theirs_sorted[:, 2:], atol=1e-4)


def test_the_keypoint_of_a_blob_is_at_its_centre() -> None:
    y, x = np.mgrid[:120, :160]
    blob = 60 + 150 * np.exp(-((x - 70.3) ** 2 + (y - 50.6) ** 2) / 32)
    pixels = np.repeat(blob.round().astype(np.uint8)[..., None], 3, 2)
    (features,) = SiftExtractor(Settings(extractor="sift", threads=1)).extract([Photo("a", pixels, (160, 120))])
    np.testing.assert_allclose(features.keypoints[0], [70.3, 50.6], atol=0.05)


@pytest.mark.parametrize("largest", [False, True])
def test_flat_and_tiny_photos_have_no_keypoints(largest: bool) -> None:
    extractor = SiftExtractor(Settings(extractor="sift", threads=1), largest=largest)
    for shape in ((1, 1, 3), (5, 4, 3), (40, 30, 3)):
        (features,) = extractor.extract([Photo("a", np.full(shape, 99, np.uint8), shape[1::-1])])
        assert features.descriptors.shape == (0, 128) and features.keypoints.shape == (0, 2)


def test_scales_and_orientations_are_stored_and_required(gallery: Path, tmp_path: Path) -> None:
    features, _ = sift_features(gallery, (200, 150), 50)
    with FeatureStore(tmp_path / "features.h5", append={"extractor": "sift"}) as store:
        store.write("a.jpg", features)
        store.write("b.jpg", Features(features.keypoints, features.scores, features.descriptors, features.image_size))
        store.commit()
        read, without = store.read("a.jpg"), store.read("b.jpg")
    np.testing.assert_array_equal(keypoint_input(read, "sift"), keypoint_input(features, "sift"))
    assert keypoint_input(read, "sift").shape == (len(features.keypoints), 4)
    assert without.scales is None and keypoint_input(without, "disk").shape[1] == 2
    with pytest.raises(ItemError, match="extract the photo again with --extractor sift"):
        keypoint_input(without, "sift")


def test_the_published_network_gets_scales_and_orientations(gallery: Path) -> None:
    features, _ = sift_features(gallery, (200, 150), 50)
    assert {"scales", "oris"} <= upstream.published.tensors(features).keys()


def test_the_largest_keypoints_are_kept_with_their_own_descriptors(gallery: Path) -> None:
    rgb = np.ascontiguousarray(cv2.imread(str(sorted(gallery.glob("*.jpg"))[0]))[..., ::-1])
    photo, size = Photo("a", rgb, rgb.shape[1::-1]), rgb.shape[1::-1]
    (every,) = SiftExtractor(Settings(extractor="sift", max_keypoints=20000, threads=1)).extract([photo])
    few = SiftExtractor(Settings(extractor="sift", max_keypoints=200, threads=1), largest=True)
    (features,) = few.extract([photo])
    assert every.scales is not None and features.scales is not None
    assert len(features.keypoints) == 200 < len(every.keypoints) and features.image_size == size
    np.testing.assert_array_equal(features.scores, np.sort(every.scales)[::-1][:200])
    np.testing.assert_array_equal(features.scales, features.scores)
    described = {tuple(point): row for point, row in zip(every.keypoints.tolist(), every.descriptors, strict=True)}
    for point, row in zip(features.keypoints.tolist(), features.descriptors, strict=True):
        np.testing.assert_allclose(row, described[tuple(point)], atol=0.1)
    assert few.provenance["keep"] == "largest"
    assert few.extract([photo])[0].keypoints.tolist() == features.keypoints.tolist()
