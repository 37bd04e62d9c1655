"""The refinement of keypoints to the maximum of a quadratic fit."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lgbatch.export import reference
from lgbatch.export.networks.detect import neighbours, quadratic_offsets

HEIGHT, WIDTH = 12, 15


def offset_of(function: Callable[[Tensor, Tensor], Tensor], x: int = 6, y: int = 5) -> list[float]:
    """The offset from a pixel to the maximum of the function of x and y (broadcast), sampled at whole pixels."""
    values = function(torch.arange(WIDTH).float(), torch.arange(HEIGHT).float()[:, None])
    offset = quadratic_offsets(neighbours(values[None], torch.tensor([[y * WIDTH + x]])))[0, 0]
    by_reference = reference.quadratic_maxima(values, torch.tensor([x]), torch.tensor([y]))[0]
    assert by_reference.tolist() == pytest.approx((offset + torch.tensor([x, y])).tolist(), abs=1e-3)
    return offset.tolist()


def test_the_maximum_of_a_quadratic_function_is_found_exactly() -> None:
    def turned(x: Tensor, y: Tensor) -> Tensor:
        dx, dy = x - 6.3, y - 4.6
        return 7 - 2 * dx.square() - 0.5 * dy.square() + 0.8 * dx * dy

    assert offset_of(turned) == pytest.approx([0.3, -0.4], abs=1e-4)


def test_the_maximum_of_a_bump_is_found_closely() -> None:
    def bump(x: Tensor, y: Tensor) -> Tensor:
        return torch.exp(-((x - 5.8).square() + (y - 5.25).square()) / 8)

    assert offset_of(bump) == pytest.approx([-0.2, 0.25], abs=0.02)


def test_an_offset_is_at_most_half_a_pixel() -> None:
    assert offset_of(lambda x, y: -0.1 * (x - 8).square() - (y - 4).square()) == pytest.approx([0.5, -0.5])


@pytest.mark.parametrize("sign", [1, -1])
def test_without_a_maximum_a_keypoint_stays(sign: int) -> None:
    assert offset_of(lambda x, y: sign * ((x - 6.3).square() - 0.5 * (y - 5).square())) == [0, 0]  # a saddle
    assert offset_of(lambda x, y: torch.zeros(HEIGHT, WIDTH)) == [0, 0]


@pytest.mark.parametrize(("x", "y"), [(0, 5), (WIDTH - 1, 5), (6, 0), (6, HEIGHT - 1), (0, 0)])
def test_at_an_edge_a_keypoint_stays_at_the_edge(x: int, y: int) -> None:
    dx, dy = offset_of(lambda u, v: -(u - x - 0.2).square() - (v - y - 0.1).square(), x, y)
    assert dx == pytest.approx(0 if x in (0, WIDTH - 1) else 0.2, abs=1e-5)
    assert dy == pytest.approx(0 if y in (0, HEIGHT - 1) else 0.1, abs=1e-5)


def test_each_image_of_a_batch_has_its_own_offsets() -> None:
    values = torch.rand(3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    index = torch.tensor([[20, 77, 100], [33, 5, 160], [64, 65, 66]])
    together = quadratic_offsets(neighbours(values, index))
    for image, row, offsets in zip(values, index, together, strict=True):
        torch.testing.assert_close(quadratic_offsets(neighbours(image[None], row[None]))[0], offsets)
