"""The exported ALIKED and its LightGlue against the published packages, with real weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from lgbatch.config import Settings
from lgbatch.errors import ModelError
from lgbatch.export import reference
from lgbatch.export.extractors import EXTRACTORS, KINDS
from lgbatch.export.models import ensure_models
from lgbatch.export.networks.pyramid import Level, PatchReader
from lgbatch.export.weights.catalog import WEIGHTS
from lgbatch.export.weights.find import find_weights
from lgbatch.export.weights.state import load_state
from lgbatch.features.network import Extractor
from lgbatch.matching.lightglue import Matcher
from lgbatch.photos.crawl import crawl
from lgbatch.photos.decode import decode
from lgbatch.runtime.models import Model, open_file, open_stages
from lgbatch.runtime.registry import model_path
from tests.helpers import upstream
from tests.helpers.extraction import Found, assert_same, photo, run

pytestmark = pytest.mark.weights

VARIANTS = [name for name in EXTRACTORS if name.startswith("aliked")]
SIZES = [(64, 48), (333, 500), (101, 37), (640, 427), (1024, 683)]
"""(width, height): tiny, portrait, odd and flat, landscape, the default."""
FAST = {("aliked-n16", (64, 48)), ("aliked-n16", (333, 500)), ("aliked-n16", (101, 37))}
"""Combinations that are not marked slow."""


def extractor(models: Path, name: str) -> Model:
    ensure_models(models, name, ["extractor"])
    return open_file(model_path(models, name, "extractor"), "extractor", "cpu", threads=1)


def published(name: str, image: NDArray[np.float32], most: int) -> Found:
    with torch.no_grad():
        output = upstream.aliked(name, most)({"image": torch.from_numpy(image[None])})
    return tuple(output[key][0].numpy() for key in ("keypoints", "keypoint_scores", "descriptors"))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        pytest.param(name, size, marks=[] if (name, size) in FAST else [pytest.mark.slow])
        for name in VARIANTS
        for size in SIZES
    ],
)
def test_the_export_and_the_reference_agree_with_the_published_aliked(
    models: Path, gallery: Path, name: str, size: tuple[int, int]
) -> None:
    image = photo(gallery, size)
    expected = published(name, image, 700)
    (actual,) = run(extractor(models, name), image[None], 700)
    assert_same(actual, expected)
    state = load_state(find_weights(WEIGHTS[f"{name}.pth"], cache=models / "weights"))
    with torch.no_grad():
        keypoints, scores, descriptors = reference.aliked(state, torch.from_numpy(image), 700)
    assert_same((keypoints.numpy(), scores.numpy(), descriptors.numpy()), expected)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "aliked-n16" else [pytest.mark.slow]) for name in VARIANTS]
)
def test_a_batch_gives_the_same_features_as_single_photos(models: Path, gallery: Path, name: str) -> None:
    model = extractor(models, name)
    images = np.stack([photo(gallery, (320, 240), number) for number in range(3)])
    images = np.concatenate([images, np.full_like(images[:1], 0.5)])
    batch = run(model, images, 300)
    for image, batched in zip(images, batch, strict=True):
        (alone,) = run(model, image[None], 300)
        assert len(alone[0]) == len(batched[0])
        np.testing.assert_allclose(alone[0], batched[0], atol=1e-4)
        np.testing.assert_allclose(alone[2], batched[2], atol=1e-5)
    counts = [len(keypoints) for keypoints, _, _ in batch]
    limit = 110 if name == "aliked-n16rot" else 100  # this variant finds the most keypoints in a uniform photo
    assert min(counts[:3]) > limit > counts[3]


def test_a_lower_limit_keeps_the_best_keypoints(models: Path, gallery: Path) -> None:
    model = extractor(models, "aliked-n16")
    image = photo(gallery, (320, 240))
    ((many, _, _),), ((few, _, _),) = (run(model, image[None], most) for most in (200, 50))
    assert len(few) == 50
    np.testing.assert_array_equal(few, many[:50])


def test_a_black_photo_has_at_most_one_keypoint(models: Path) -> None:
    image = np.zeros((1, 3, 5, 5), np.float32)
    ((keypoints, scores, descriptors),) = run(extractor(models, "aliked-n16"), image, 100)
    assert len(keypoints) == len(scores) == len(descriptors) <= 1


@pytest.mark.parametrize("side", [2, 3])
@pytest.mark.parametrize("full", [(64, 96), (32, 32)])
def test_patches_of_a_pyramid_equal_those_of_the_upsampled_map(side: int, full: tuple[int, int]) -> None:
    random = torch.Generator().manual_seed(0)
    first, levels, dense = torch.randn(5, 4, generator=random), [], []
    for factor, channels in ((1, 5), (2, 4), (8, 4), (32, 4)):
        size = (full[0] // factor, full[1] // factor)
        level = torch.randn(2, channels, *size, generator=random)
        levels.append(Level(level.flatten(2).transpose(1, 2), size))
        dense.append(F.interpolate(level, full, mode="bilinear", align_corners=True))
    dense[0] = F.selu(torch.einsum("ij,bihw->bjhw", first, dense[0]))
    upsampled = torch.cat(dense, 1)
    y, x = (torch.randint(length - side + 1, (2, 300), generator=random) for length in full)
    y[:, 0], x[:, 0], y[:, 1], x[:, 1] = 0, 0, full[0] - side, full[1] - side
    with torch.no_grad():
        patches = PatchReader(side, first)(levels, x, y)
    for b in range(2):
        for n in range(300):
            expected = upsampled[b, :, y[b, n] : y[b, n] + side, x[b, n] : x[b, n] + side]
            torch.testing.assert_close(patches[b, n], expected.flatten(1).T, atol=1e-4, rtol=0)


def test_matches_agree_with_the_published_lightglue(models: Path, gallery: Path) -> None:
    ensure_models(models, "aliked-n16", KINDS)
    settings = Settings(extractor="aliked-n16", max_keypoints=400, threads=1, precision="fp32")
    network = Extractor(models, settings)
    first, second = (network.extract([decode(ref, 640)])[0] for ref in crawl(gallery).images[:2])
    matcher = Matcher(models, settings)
    (matches,) = matcher.match([(matcher.encode(first), matcher.encode(second))], 4096)
    expected, _ = upstream.match(upstream.lightglue("aliked"), first, second)
    actual = {(a, b) for a, b in matches.indices.tolist()}
    assert len(expected) > 50
    assert len(actual & expected) >= 0.99 * len(actual | expected)


def test_variants_share_one_lightglue(models: Path) -> None:
    ensure_models(models, "aliked-n16", KINDS)
    for kind in ("stages", "matcher"):
        assert model_path(models, "aliked-n16", kind) == model_path(models, "aliked-n32", kind)
        assert model_path(models, "aliked-n16", kind) != model_path(models, "disk", kind)
    for precision in ("fp32", "int8"):
        opened = open_stages(models, Settings(extractor="aliked-n32", device="cpu", precision=precision))
        assert opened.weights == WEIGHTS["aliked_lightglue.pth"].sha256


def test_an_extractor_without_lightglue_is_refused_before_the_export(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no LightGlue has been published for aliked-t16"):
        ensure_models(tmp_path / "models", "aliked-t16", ["extractor", "stages"])
    assert not (tmp_path / "models").exists()
