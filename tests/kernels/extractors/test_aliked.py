"""ALIKED in the kernels against its ONNX model, with real weights."""

from pathlib import Path

import numpy as np
import pytest

from lgbatch.config import Settings
from lgbatch.export.models import ensure_models
from lgbatch.features.network import Extractor
from lgbatch.kernels import library
from lgbatch.kernels.aliked import Aliked
from lgbatch.photos.crawl import crawl
from lgbatch.photos.decode import decode
from lgbatch.runtime.models import Model, open_extractor, open_file
from lgbatch.runtime.registry import model_path
from tests.helpers.extraction import assert_same, photo, run

pytestmark = [
    pytest.mark.weights,
    pytest.mark.skipif(not library.chosen_isa(), reason="installed without the kernels"),
]
SIZES = [(64, 48), (333, 500), (101, 37), (640, 427)]
"""(width, height): tiny, portrait, odd and flat, landscape."""


def opened(models: Path, name: str) -> tuple[Model, Model]:
    """The extractor in the kernels and in ONNX Runtime."""
    ensure_models(models, name, ["extractor", "extractor-kernels"])
    model = open_extractor(models, Settings(extractor=name, device="cpu"))
    assert isinstance(model.session, Aliked)
    return model, open_file(model_path(models, name, "extractor"), "extractor", "cpu", threads=1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "name", ["aliked-n16rot", *[pytest.param(f"aliked-{v}", marks=pytest.mark.slow) for v in ("n16", "n32", "t16")]]
)
def test_features_equal_those_of_the_onnx_model(models: Path, gallery: Path, name: str, size: tuple[int, int]) -> None:
    kernels, onnx = opened(models, name)
    image = photo(gallery, size)[None]
    (actual,), (expected,) = run(kernels, image, 700), run(onnx, image, 700)
    assert_same(actual, expected)
    assert kernels.weights == onnx.weights and kernels.session.widths[2] == onnx.session.widths[2]


@pytest.mark.parametrize("isa", library.available_isas())
def test_every_instruction_set_finds_the_same(
    models: Path, gallery: Path, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = photo(gallery, (333, 250))[None]
    kernels, onnx = opened(models, "aliked-n16rot")
    monkeypatch.setenv(library.ISA_VARIABLE, isa)
    forced = Model(Aliked(kernels.path), kernels.path)
    (actual,), (expected,) = run(forced, image, 700), run(onnx, image, 700)
    assert_same(actual, expected)


def test_a_batch_gives_the_same_features_as_single_photos(models: Path, gallery: Path) -> None:
    model, _ = opened(models, "aliked-n16rot")
    images = np.stack([photo(gallery, (320, 240), number) for number in range(2)])
    images = np.concatenate([images, np.full_like(images[:1], 0.5)])
    batch = run(model, images, 300)
    for image, batched in zip(images, batch, strict=True):
        for alone, together in zip(run(model, image[None], 300)[0], batched, strict=True):
            np.testing.assert_array_equal(alone, together)
    assert len(batch[2][0]) < len(batch[0][0])


def test_a_lower_limit_keeps_the_best_keypoints(models: Path, gallery: Path) -> None:
    model, _ = opened(models, "aliked-n16rot")
    image = photo(gallery, (320, 240))[None]
    ((many, _, _),), ((few, _, _),), ((none, _, _),) = (run(model, image, most) for most in (200, 50, 0))
    np.testing.assert_array_equal(few, many[:50])
    assert len(few) == 50 and none.shape == (0, 2)


def test_a_black_photo_has_at_most_one_keypoint(models: Path) -> None:
    model, _ = opened(models, "aliked-n16rot")
    ((keypoints, scores, descriptors),) = run(model, np.zeros((1, 3, 5, 5), np.float32), 100)
    assert len(keypoints) == len(scores) == len(descriptors) <= 1


def test_the_provenance_is_that_of_the_onnx_model(models: Path, gallery: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(models, "aliked-n16rot")
    settings = Settings(extractor="aliked-n16rot", max_keypoints=200, device="cpu")
    ref = crawl(gallery).images[0]
    in_kernels = Extractor(models, settings)
    monkeypatch.setattr(library, "chosen_isa", lambda: None)
    in_onnx = Extractor(models, settings)
    assert in_kernels.provenance == in_onnx.provenance and not isinstance(in_onnx.model.session, Aliked)
    first, second = (extractor.extract([decode(ref, 320)])[0] for extractor in (in_kernels, in_onnx))
    np.testing.assert_allclose(first.keypoints, second.keypoints, atol=0.01)
