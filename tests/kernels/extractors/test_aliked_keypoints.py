"""ALIKED's keypoints and descriptors in every instruction set, against PyTorch's, with random weights."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from lgbatch.export.networks.aliked import DescriptorHead
from lgbatch.export.networks.detect import detect_keypoints, refine_keypoints
from lgbatch.export.networks.pyramid import Level
from lgbatch.kernels import library
from lgbatch.kernels.aliked import THRESHOLD
from lgbatch.kernels.aliked_keypoints import Descriptor, Detector, refine
from lgbatch.kernels.aliked_maps import POOLED, STRIDE, Maps
from lgbatch.kernels.session import Array, address

pytestmark = pytest.mark.skipif(not library.available_isas(), reason="installed without the kernels")
SIZES = [(5, 5), (33, 70), (128, 96), (61, 33)]
"""(height, width)."""


@pytest.fixture(autouse=True, params=library.available_isas())
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv(library.ISA_VARIABLE, request.param)
    yield request.param


def score_map(size: tuple[int, int], *, levels: int = 0, most: float = 1.0) -> Array:
    """Random scores in 0..most, of a few levels if `levels` is not 0, so that neighbours are equal."""
    scores = np.random.default_rng(0).random(size).astype(np.float32) ** 4
    return np.float32(most) * (np.floor(scores * levels) / levels).astype(np.float32) if levels else scores * most


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scores", [{}, {"levels": 4}, {"most": 0.15}, {"most": 0}])
def test_keypoints_equal_those_of_pytorch(size: tuple[int, int], scores: dict[str, float]) -> None:
    values = score_map(size, **scores)  # type: ignore[arg-type]
    padded = np.pad(values, ((3, 4), (5, 2)), constant_values=9)  # the rows of a photo are apart in the padded map
    found = Detector().detect(padded[3 : 3 + size[0], 5 : 5 + size[1]], THRESHOLD, 40)
    tensor = torch.from_numpy(values)[None]
    index, counts = detect_keypoints(tensor, torch.tensor(40), THRESHOLD)
    count = int(counts[0])
    assert len(found) == count
    if not scores.get("levels"):  # PyTorch does not define the order of equal scores
        np.testing.assert_array_equal(found, index[0, :count])
        keypoints, refined = refine(values, found)
        expected = refine_keypoints(tensor, torch.from_numpy(found).long()[None])
        np.testing.assert_allclose(keypoints, expected[0][0], atol=1e-4)
        np.testing.assert_allclose(refined, expected[1][0], atol=1e-5)


def test_of_equal_scores_the_first_come_first() -> None:
    scores = np.zeros((40, 40), np.float32)
    scores[5::10, 5::10] = 0.5
    assert Detector().detect(scores, THRESHOLD, 5).tolist() == [205, 215, 225, 235, 605]


def head_state(random: torch.Generator, channels: int, dim: int, samples: int) -> dict[str, Tensor]:
    shapes = {
        "conv1.weight": (dim // 4, channels, 1, 1),
        "desc_head.offset_conv.0.weight": (2 * samples, dim, 3, 3),
        "desc_head.offset_conv.0.bias": (2 * samples,),
        "desc_head.offset_conv.2.weight": (2 * samples, 2 * samples, 1, 1),
        "desc_head.offset_conv.2.bias": (2 * samples,),
        "desc_head.sf_conv.weight": (dim, dim, 1, 1),
        "desc_head.agg_weights": (samples, dim, dim),
    }
    return {name: torch.randn(shape, generator=random) / 3 for name, shape in shapes.items()}


@pytest.mark.parametrize(("channels", "dim", "samples"), [(8, 64, 16), (16, 128, 16), (16, 128, 32)])
@pytest.mark.parametrize("size", [(5, 5), (61, 33)])
def test_descriptors_equal_those_of_pytorch(size: tuple[int, int], channels: int, dim: int, samples: int) -> None:
    random = torch.Generator().manual_seed(0)
    state = head_state(random, channels, dim, samples)
    full = [-(-side // STRIDE) * STRIDE for side in size]
    first = torch.randn(*full, channels, generator=random)
    smaller = [torch.randn(*(side // factor for side in full), dim // 4, generator=random) for factor in POOLED]
    keypoints = torch.rand(70, 2, generator=random) * (torch.tensor(size).flip(0) - 1)
    keypoints[:2] = torch.tensor([[0.0, 0.0], [size[1] - 1, size[0] - 1]])
    maps = Maps(first.numpy(), [level.numpy() for level in smaller], np.empty(full, np.float32))
    levels = [Level(level.flatten(0, 1)[None], (level.shape[0], level.shape[1])) for level in (first, *smaller)]
    network = DescriptorHead(state)
    with torch.no_grad():
        expected = network(levels, keypoints[None], size, maps.corner(size))[0].numpy()
    arrays = {f"describe.{name}": value.numpy() for name, value in network.state_dict().items()}
    kept: list[Array] = []

    def keep(values: Array) -> int:
        kept.append(values)
        return address(values)

    descriptor = Descriptor(arrays | {"aggregate.0": state["conv1.weight"][:, :, 0, 0].T.numpy()}, keep)
    np.testing.assert_allclose(descriptor.describe(maps, keypoints.numpy(), size), expected, atol=2e-4)
