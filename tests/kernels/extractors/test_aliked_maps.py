"""ALIKED's maps in the kernels against PyTorch in float64, on random weights: no model file and no download.

PyTorch in float32 differs from float64 as much as the kernels do (RMS, on the published weights): the positions of the
deformable convolutions pass rounding on.
"""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lgbatch.kernels import library
from lgbatch.kernels.aliked_maps import MapNetwork, Maps
from lgbatch.kernels.session import address

torch = pytest.importorskip("torch")

from lgbatch.export.networks.aliked import AlikedExtractor, DeformableConv  # noqa: E402
from lgbatch.export.weights.catalog import WEIGHTS  # noqa: E402
from lgbatch.export.weights.find import find_weights  # noqa: E402
from lgbatch.export.weights.state import load_state  # noqa: E402

pytestmark = pytest.mark.skipif(not library.available_isas(), reason="installed without the kernels")

Array = NDArray[Any]
WIDTHS = {"t16": ((8, 16, 32, 64), 64), "n16": ((16, 32, 64, 128), 128)}
"""Channels of the blocks and of the descriptors. aliked-n32 and aliked-n16rot have those of aliked-n16."""
SIZES = [(1, 1), (5, 5), (33, 70), (65, 32), (40, 300)]
"""Heights and widths of photos, which are padded to multiples of 32."""
ERROR = 1e-4
"""Most that a value of the maps may differ; their standard deviations are 0.1 to 1.8. Measured: 3.4e-5 (PyTorch in
float32: 3.4e-5)."""


def random_state(variant: str) -> dict[str, Any]:
    """A state dict with the names of the published weights; offsets are about a pixel."""
    channels, dim = WIDTHS[variant]
    random = torch.Generator().manual_seed(0)
    state = dict[str, Any]()

    def conv(name: str, outside: int, inside: int, side: int, *, bias: bool = True, gain: float = 1.0) -> None:
        deviation = gain / (inside * side * side) ** 0.5
        state[f"{name}.weight"] = torch.randn(outside, inside, side, side, generator=random) * deviation
        if bias:
            state[f"{name}.bias"] = torch.randn(outside, generator=random) * 0.3

    for i, (inside, outside) in enumerate(zip((3, *channels), channels, strict=False), 1):
        for j, before in ((1, inside), (2, outside)):
            name = f"block{i}.conv{j}"
            if i > 2:
                conv(f"{name}.offset_conv", 18, before, 3)
            conv(f"{name}.regular_conv" if i > 2 else name, outside, before, 3, bias=False, gain=1.5)
            for part in ("weight", "bias", "running_mean"):
                state[f"block{i}.bn{j}.{part}"] = torch.randn(outside, generator=random) * 0.2 + (part == "weight")
            state[f"block{i}.bn{j}.running_var"] = torch.rand(outside, generator=random) + 0.5
        if i > 1:
            conv(f"block{i}.downsample", outside, inside, 1)
        conv(f"conv{i}", dim // 4, outside, 1, bias=False)
    for i, inside, outside, side in ((0, dim, 8, 1), (2, 8, 4, 3), (4, 4, 4, 3), (6, 4, 1, 3)):
        conv(f"score_head.{i}", outside, inside, side, bias=False, gain=2)
    conv("desc_head.offset_conv.0", 32, dim, 3)
    conv("desc_head.offset_conv.2", 32, 32, 1)
    conv("desc_head.sf_conv", dim, dim, 1, bias=False)
    state["desc_head.agg_weights"] = torch.randn(16, dim, dim, generator=random)
    return state


def network(state: dict[str, Any]) -> AlikedExtractor:
    extractor = AlikedExtractor(state)
    for module in extractor.modules():
        if isinstance(module, DeformableConv):
            module.use_grid_sample = True  # PyTorch cannot run DeformConv
    return extractor


@pytest.fixture(scope="module", params=library.available_isas())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(library.ISA_VARIABLE, request.param)
        yield request.param


@functools.cache
def random_network(variant: str) -> AlikedExtractor:
    return network(random_state(variant)).double()


@functools.cache
def random_maps(variant: str, size: tuple[int, int]) -> Maps:
    return expected_maps(random_network(variant), photo(*size))


def photo(height: int, width: int) -> Array:
    """Random rectangles: areas of one colour and edges."""
    random = np.random.default_rng(0)
    pixels = np.zeros((height, width, 3), np.uint8)
    for _ in range(50):
        (top, left), size = random.integers((height, width)), random.integers(1, 2 + max(height, width) // 2, 2)
        pixels[top : top + size[0], left : left + size[1]] = random.integers(256, size=3)
    return pixels


def expected_maps(extractor: AlikedExtractor, pixels: Array) -> Maps:
    with torch.no_grad():
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(extractor.aggregate[0].dtype) / 255
        levels, scores = extractor.maps(image)
    first, *rest = [level.pixels[0].unflatten(0, level.size).numpy() for level in levels]
    return Maps(first, rest, scores[0, 0].numpy())


def computed_maps(extractor: AlikedExtractor, pixels: Array) -> Maps:
    kept = list[Array]()

    def keep(array: Array) -> int:
        kept.append(array)
        return address(array)

    kernels = MapNetwork({name: value.numpy() for name, value in extractor.state_dict().items()}, keep)
    maps = kernels.empty_maps(*pixels.shape[:2])
    for values in (maps.first, *maps.levels, maps.scores):
        values.fill(np.nan)
    kernels.run(pixels, maps)
    return maps


def differences(maps: Maps, expected: Maps) -> list[float]:
    both = [[each.first, *each.levels, each.scores] for each in (maps, expected)]
    return [float(np.abs(a - b).max()) for a, b in zip(*both, strict=True)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("variant", WIDTHS)
def test_the_maps_are_those_of_pytorch(isa: str, variant: str, size: tuple[int, int]) -> None:
    expected = random_maps(variant, size)
    assert size == (1, 1) or expected.scores.std() > 0.1, "the scores are saturated"
    assert max(differences(computed_maps(random_network(variant), photo(*size)), expected)) < ERROR


@pytest.mark.weights
@pytest.mark.parametrize(("name", "size"), [("aliked-n16rot", (683, 1024)), ("aliked-t16", (341, 511))])
def test_the_maps_of_published_weights_are_those_of_pytorch(name: str, size: tuple[int, int], models: Path) -> None:
    extractor = network(load_state(find_weights(WEIGHTS[f"{name}.pth"], cache=models / "weights")))
    assert max(differences(computed_maps(extractor, photo(*size)), expected_maps(extractor, photo(*size)))) < ERROR
