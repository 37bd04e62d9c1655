"""DISK in the kernels against PyTorch in fp32, on random weights, and every instruction set against plain C."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")

from lgbatch.config import Settings  # noqa: E402
from lgbatch.export import parity, quantize  # noqa: E402
from lgbatch.export.models import ensure_models  # noqa: E402
from lgbatch.export.networks import disk as network  # noqa: E402
from lgbatch.kernels import disk, library  # noqa: E402
from lgbatch.runtime.models import open_extractor, open_file  # noqa: E402
from lgbatch.runtime.registry import model_path  # noqa: E402
from tests.helpers import extraction  # noqa: E402
from tests.helpers.extraction import Found  # noqa: E402

pytestmark = pytest.mark.skipif(not library.available_isas(), reason="installed without the kernels")

Array = NDArray[Any]
SIZES = [(5, 5), (5, 40), (16, 16), (33, 18), (50, 131), (97, 64)]
"""(height, width): the smallest, multiples of the stride and others, wider than a strip, and an odd number of rows in
the lowest map."""
MANY = 10_000


class InstanceNorm(torch.nn.Module):
    """PyTorch's refuses maps of one pixel, which ONNX Runtime normalizes to 0."""

    def forward(self, x: Any) -> Any:
        variance, mean = torch.var_mean(x, (2, 3), correction=0, keepdim=True)
        return (x - mean) / (variance + 1e-5).sqrt()


@pytest.fixture(scope="module")
def extractor() -> Any:
    """A DISK with random weights."""
    random = torch.Generator().manual_seed(0)
    unet = network.Unet()
    with torch.no_grad():
        for name, value in unet.named_parameters():
            noise = torch.randn(value.shape, generator=random)
            value.copy_(0.25 + 0.1 * noise if "slope" in name else noise / value[0].numel() ** 0.5)
    for module in unet.modules():
        if isinstance(module, network.Gate):
            module.norm = InstanceNorm()
    return network.DiskExtractor(unet).eval()


@pytest.fixture(scope="module")
def file(extractor: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("disk") / "disk.npz"
    quantize.save(quantize.to_arrays(extractor, exact=extractor.state_dict()), path, {})
    return path


@pytest.fixture(scope="module", params=library.available_isas())
def session(file: Path, request: pytest.FixtureRequest) -> Iterator[disk.Disk]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(library.ISA_VARIABLE, request.param)
        yield disk.Disk(file)


def photo(size: tuple[int, int], seed: int = 0) -> NDArray[np.uint8]:
    """Random pixels, (H, W, 3), not the same at all places: the upper half is dark."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    pixels[: size[0] // 2] //= 4
    return pixels


def run(session: disk.Disk, *photos: Array, most: int = MANY) -> list[Found]:
    outputs = session.run({"pixels": np.stack(photos), "max_keypoints": np.array(most)})
    return [(k[:c], s[:c], d[:c]) for k, s, d, c in zip(*outputs, strict=True)]


def in_torch(extractor: Any, pixels: Array, most: int = MANY) -> Found:
    image = torch.from_numpy(pixels.transpose(2, 0, 1).copy()).float()[None] / 255
    with torch.no_grad():
        keypoints, scores, descriptors, counts = (x[0].numpy() for x in extractor(image, torch.tensor(most)))
    return keypoints[:counts], scores[:counts], descriptors[:counts]


def assert_close(actual: Found, expected: Found, share: float) -> None:
    """This share of the keypoints of each is within 0.1 pixels of one of the other, with equal scores and descriptors.

    Rounding decides which of two nearly equal neighbours is the maximum, and whether a score exceeds 0.
    """
    distance = np.linalg.norm(actual[0][:, None] - expected[0][None], axis=2)
    for axis in (0, 1):
        assert (distance.min(axis, initial=np.inf) < 0.1).mean() >= share
    rows, expected_rows = parity.same_keypoints(actual[0], expected[0])
    np.testing.assert_allclose(actual[1][rows], expected[1][expected_rows], atol=0.02)
    assert (actual[2][rows] * expected[2][expected_rows]).sum(1).min() > 0.9999


@pytest.mark.parametrize("size", SIZES)
def test_features_equal_pytorch(session: disk.Disk, extractor: Any, size: tuple[int, int]) -> None:
    pixels = photo(size)
    actual, expected = run(session, pixels)[0], in_torch(extractor, pixels)
    if len(expected[0]) + len(actual[0]) < 5:
        assert abs(len(actual[0]) - len(expected[0])) <= 1
    else:
        assert_close(actual, expected, 0.97)
    assert (np.diff(actual[1]) <= 0).all()
    np.testing.assert_allclose(np.linalg.norm(actual[2], axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("size", [(50, 131), (97, 64)])
def test_instruction_sets_equal_plain_c(
    session: disk.Disk, file: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    monkeypatch.setenv(library.ISA_VARIABLE, library.PORTABLE)
    pixels = photo(size, 1)
    assert_close(run(session, pixels)[0], run(disk.Disk(file), pixels)[0], 0.99)


def test_the_best_keypoints_are_kept(session: disk.Disk) -> None:
    pixels = photo((60, 70))
    every, best = run(session, pixels)[0], run(session, pixels, most=20)[0]
    for values, expected in zip(best, every, strict=True):
        np.testing.assert_array_equal(values, expected[:20])
    assert len(every[0]) > 20 and len(run(session, pixels, most=0)[0][0]) == 0


def test_a_batch_equals_its_photos(session: disk.Disk) -> None:
    photos = [photo((40, 70), seed) for seed in range(3)]
    for found, pixels in zip(run(session, *photos), photos, strict=True):
        for values, expected in zip(found, run(session, pixels)[0], strict=True):
            np.testing.assert_array_equal(values, expected)


def test_a_photo_of_one_colour_is_extracted(session: disk.Disk) -> None:
    """The variances of its maps are 0 except for the edges."""
    for values in run(session, np.zeros((48, 64, 3), np.uint8))[0]:
        assert np.isfinite(values).all()


def test_equal_scores_are_in_raster_order(file: Path, tmp_path: Path) -> None:
    """Without the lower maps, a heatmap depends on small windows: a photo of equal tiles has equal scores."""
    with np.load(file) as stored:
        arrays = {name: stored[name] for name in stored.files}
    np.savez(tmp_path / "disk.npz", **(arrays | {"low_taps": np.zeros_like(arrays["low_taps"])}))
    found = run(disk.Disk(tmp_path / "disk.npz"), np.tile(photo((16, 16)), (8, 8, 1)))[0]
    ties = np.flatnonzero(np.diff(found[1]) == 0)
    x, y = np.round(found[0]).astype(int).T
    assert len(ties) > 100 and (y[ties] * 128 + x[ties] < y[ties + 1] * 128 + x[ties + 1]).all()


@pytest.mark.parametrize("spread", [0.01, 1.0, 30.0])
def test_rounded_weights_cannot_overflow(spread: float) -> None:
    weights = np.random.default_rng(0).standard_normal((3, 320, 64, 2)) ** 3 * spread
    weights[0, :, 0] = 1
    rounded, scale = disk._quantize(weights.astype(np.float32), 2 * disk.LARGEST)
    assert (np.abs(rounded.astype(np.int64)).sum((1, 3)) * 2 * disk.LARGEST).max() < 2**31
    np.testing.assert_allclose(rounded * scale[:, None, :, None], weights, atol=float(scale.max()))


@pytest.mark.weights
@pytest.mark.parametrize("size", [(64, 48), (333, 500), (640, 427)])
def test_features_equal_those_of_the_onnx_model(models: Path, gallery: Path, size: tuple[int, int]) -> None:
    ensure_models(models, "disk", ["extractor", "extractor-kernels"])
    kernels = open_extractor(models, Settings(extractor="disk", device="cpu"))
    assert isinstance(kernels.session, disk.Disk)
    onnx = open_file(model_path(models, "disk", "extractor"), "extractor", "cpu", threads=1)
    image = extraction.photo(gallery, size)[None]
    (actual,), (expected,) = extraction.run(kernels, image, 700), extraction.run(onnx, image, 700)
    distance = np.linalg.norm(actual[0][:, None] - expected[0][None], axis=2)
    assert abs(len(actual[0]) - len(expected[0])) <= 3 and (distance.min(1) < 0.5).mean() > 0.98
    near = distance.min(1) < 0.1
    assert near.mean() > 0.97
    cosines = (actual[2][near] * expected[2][distance.argmin(1)[near]]).sum(1)
    assert cosines.mean() > 0.999
    assert kernels.weights == onnx.weights and kernels.session.widths[2] == onnx.session.widths[2]
