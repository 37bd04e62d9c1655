"""The exported XFeat and LighterGlue against the published packages, with real weights."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lgbatch.config import Settings
from lgbatch.errors import ModelError
from lgbatch.export import reference
from lgbatch.export.extractors import KINDS
from lgbatch.export.models import ensure_models
from lgbatch.export.weights.catalog import WEIGHTS
from lgbatch.export.weights.find import find_weights
from lgbatch.export.weights.state import load_state
from lgbatch.features.network import Extractor
from lgbatch.matching.lightglue import Matcher
from lgbatch.photos.crawl import crawl
from lgbatch.photos.decode import decode
from lgbatch.runtime.models import Model, open_extractor, open_stages
from lgbatch.runtime.precision import matching_precision
from lgbatch.runtime.registry import Shape, model_path, shape
from lgbatch.types import Features
from tests.helpers import upstream
from tests.helpers.extraction import assert_same, photo, run

pytestmark = pytest.mark.weights

SIZES = [(64, 48), (333, 500), (101, 37), (640, 427), (1024, 683)]
"""(width, height): tiny, portrait, odd and flat, landscape, the default."""


@pytest.fixture(scope="module")
def extractor(models: Path) -> Model:
    ensure_models(models, "xfeat", ["extractor"])
    return open_extractor(models, Settings(extractor="xfeat", device="cpu", threads=1))


@pytest.mark.parametrize("size", SIZES)
def test_the_export_and_the_reference_agree_with_the_published_xfeat(
    models: Path, gallery: Path, extractor: Model, size: tuple[int, int]
) -> None:
    image = photo(gallery, size)
    output = upstream.xfeat().detectAndCompute(torch.from_numpy(image[None]), top_k=700)[0]
    expected = tuple(output[key].numpy() for key in ("keypoints", "scores", "descriptors"))
    (actual,) = run(extractor, image[None], 700)
    assert_same(actual, expected)
    state = load_state(find_weights(WEIGHTS["xfeat.pt"], cache=models / "weights"))
    with torch.no_grad():
        keypoints, scores, descriptors = reference.xfeat(state, torch.from_numpy(image), 700)
    assert_same((keypoints.numpy(), scores.numpy(), descriptors.numpy()), expected)


def test_a_batch_gives_the_same_features_as_single_photos(gallery: Path, extractor: Model) -> None:
    images = np.stack([photo(gallery, (320, 240), number) for number in range(3)])
    images = np.concatenate([images, np.full_like(images[:1], 0.5)])
    batch = run(extractor, images, 300)
    for image, batched in zip(images, batch, strict=True):
        (alone,) = run(extractor, image[None], 300)
        assert len(alone[0]) == len(batched[0])
        np.testing.assert_allclose(alone[0], batched[0], atol=1e-4)
        np.testing.assert_allclose(alone[2], batched[2], atol=1e-4)
    assert min(len(keypoints) for keypoints, _, _ in batch[:3]) > 100


@pytest.mark.parametrize("size", [(5, 5), (48, 64)])
def test_a_black_photo_has_no_keypoints(extractor: Model, size: tuple[int, int]) -> None:
    ((keypoints, scores, descriptors),) = run(extractor, np.zeros((1, 3, *size), np.float32), 100)
    assert len(keypoints) == len(scores) == len(descriptors) == 0


def extract_pair(models: Path, gallery: Path, settings: Settings) -> tuple[Features, Features]:
    network = Extractor(models, settings)
    first, second = (network.extract([decode(ref, 640)])[0] for ref in crawl(gallery).images[:2])
    return first, second


@pytest.mark.parametrize("width", [-1, 0.95])
def test_matches_agree_with_the_published_lighterglue(models: Path, gallery: Path, width: float) -> None:
    ensure_models(models, "xfeat", ["extractor", "stages"])
    settings = Settings(
        extractor="xfeat", max_keypoints=600, threads=1, precision="fp32", depth_confidence=-1, width_confidence=width
    )
    first, second = extract_pair(models, gallery, settings)
    matcher = Matcher(models, settings)
    (matches,) = matcher.match([(matcher.encode(first), matcher.encode(second))], 4096)
    expected = upstream.lighterglue(first, second, width)
    actual = {(a, b) for a, b in matches.indices.tolist()}
    assert len(expected) > 50
    assert len(actual & expected) >= 0.995 * len(actual | expected)


def test_matches_and_early_exit_agree_with_the_published_lightglue(models: Path, gallery: Path) -> None:
    ensure_models(models, "xfeat", ["extractor", "stages"])
    settings = Settings(extractor="xfeat", max_keypoints=600, threads=1)
    first, second = extract_pair(models, gallery, settings)
    matcher = Matcher(models, settings)
    ((matches, depth),) = matcher.match_and_stop([(matcher.encode(first), matcher.encode(second))], 4096)
    expected, stop = upstream.match(upstream.lightglue("xfeat"), first, second)
    actual = {(a, b) for a, b in matches.indices.tolist()}
    assert depth == stop
    assert len(expected) > 50
    assert len(actual & expected) >= 0.995 * len(actual | expected)


def test_its_lightglue_has_its_own_dimensions_and_supports_only_fp32(models: Path) -> None:
    ensure_models(models, "xfeat", KINDS)
    assert not model_path(models, "xfeat", "stages-int8").exists()
    assert matching_precision(Settings(extractor="xfeat", device="cpu")) == "fp32"
    with pytest.raises(ModelError, match="supports fp32 only"):
        matching_precision(Settings(extractor="xfeat", device="cpu", precision="int8"))
    opened = open_stages(models, Settings(extractor="xfeat", device="cpu", precision="fp32"))
    assert shape("xfeat") == Shape(layers=6, width=96, heads=1)
    assert [name for name in opened.models if name.startswith("layer")] == [f"layer{i}" for i in range(6)]
    assert opened.weights == WEIGHTS["xfeat-lighterglue.pt"].sha256
