"""SuperPoint, and LightGlue for SuperPoint and SIFT, exported with random weights, against independent references."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lgbatch.config import Settings
from lgbatch.errors import ModelError
from lgbatch.export import parity, reference
from lgbatch.export.lightglue import graphs
from lgbatch.export.models import export
from lgbatch.matching.lightglue import Matcher
from lgbatch.runtime.models import open_extractor
from lgbatch.runtime.registry import Shape
from lgbatch.types import Features
from tests.helpers import random_weights, upstream

pytestmark = pytest.mark.slow
SIZES = [(64, 48), (333, 500), (101, 37), (320, 240), (511, 341)]
"""(width, height)."""


@pytest.fixture(scope="module")
def random_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    random_weights.models(folder, "superpoint", "extractor", "stages", "matcher")
    random_weights.models(folder, "sift", "stages", "matcher")
    return folder


def test_superpoint_agrees_with_its_reference_alone_and_in_batches(random_models: Path) -> None:
    model = open_extractor(random_models, Settings(extractor="superpoint", device="cpu", threads=1))
    state = random_weights.superpoint()
    for width, height in SIZES:
        images = np.stack([parity.synthetic_photo(height, width, seed) for seed in range(4)])
        outputs = model.run({"image": images, "max_keypoints": np.array(400)})
        for image, keypoints, scores, descriptors, count in zip(images, *outputs, strict=True):
            with torch.no_grad():
                expected = reference.superpoint(state, torch.from_numpy(image), 400)
            expected_rows, rows = parity.same_keypoints(expected[0].numpy(), keypoints[:count])
            assert len(rows) >= 0.995 * max(count, len(expected[0])) > 0
            assert scores[:count].min() > 0.0005
            assert (expected[2].numpy()[expected_rows] * descriptors[rows]).sum(1).min() > 1 - 1e-3
            alone = model.run({"image": image[None], "max_keypoints": np.array(400)})
            np.testing.assert_array_equal(alone[0][0, : alone[3][0]], keypoints[:count])


@pytest.mark.parametrize("extractor", ["superpoint", "sift"])
def test_matches_and_early_exit_agree_with_the_published_lightglue(random_models: Path, extractor: str) -> None:
    random = np.random.default_rng(0)
    dim = 256 if extractor == "superpoint" else 128
    sides = []
    base_descriptors, base_keypoints = random.normal(size=(300, dim)), random.uniform(0, 600, (300, 2))
    scales = random.uniform(1, 20, 300)
    for count in (300, 260):
        descriptors = base_descriptors + 0.05 * random.normal(size=base_descriptors.shape)
        descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
        keypoints = base_keypoints + 0.3 * random.normal(size=(300, 2))
        arrays = [a[:count].astype(np.float32) for a in (keypoints, scales, descriptors, scales, scales / 4)]
        scales_and_oris = arrays[3:] if extractor == "sift" else [None, None]
        sides.append(Features(arrays[0], arrays[1], arrays[2], (600, 480), *scales_and_oris))
    matcher = Matcher(random_models, Settings(extractor=extractor, device="cpu", precision="fp32", threads=1))
    ((matches, depth),) = matcher.match_and_stop([(matcher.encode(sides[0]), matcher.encode(sides[1]))], 4096)
    expected, stop = upstream.match(random_weights.lightglue(extractor), *sides)
    actual = {(int(a), int(b)) for a, b in matches.indices}
    assert depth == stop == random_weights.STOP
    assert len(expected) > 50
    assert len(actual & expected) >= 0.995 * len(actual | expected)


def test_wrong_weights_are_refused_in_one_line(tmp_path: Path) -> None:
    torch.save(random_weights.superpoint(), tmp_path / "superpoint_v1.pth")
    lines: list[str] = []
    with pytest.raises(ModelError, match=r"is not superpoint_v1.pth: sha256 .*; the original is at https") as raised:
        export(tmp_path / "models", "superpoint", weights=tmp_path, log=lines.append)
    assert "\n" not in str(raised.value) and "noncommercial" in lines[0]


def test_stages_after_the_tenth_layer_have_their_own_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "shape_of", lambda state: Shape(layers=12))
    monkeypatch.setattr(graphs, "Stem", lambda state, ops: "stem")
    monkeypatch.setattr(graphs, "Layer", lambda state, index, ops, decide: f"layer{index}")
    monkeypatch.setattr(graphs, "Head", lambda state, index: f"head{index}")
    stages = list(graphs.stage_modules({}, graphs.OPSET))
    assert len(stages) == 25 and all(stage == module for stage, _, module in stages)
