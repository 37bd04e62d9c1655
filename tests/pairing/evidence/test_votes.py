"""Mutual nearest neighbours, and the votes of the best descriptors."""

import numpy as np
import pytest

from lgbatch.pairing.evidence.votes import BEST, BestDescriptors
from lgbatch.pairing.nearest_descriptors import RATIO, mutual_nearest
from lgbatch.types import FloatArray
from tests.pairing.helpers import scene, unit


def naive(a: FloatArray, b: FloatArray) -> list[tuple[int, int]]:
    """Mutual nearest neighbours that pass the ratio test, one by one, by distances."""
    distances = np.linalg.norm(a[:, None].astype(np.float64) - b, axis=2)
    found = []
    for row, near in enumerate(distances.argmin(1)):
        second = np.partition(distances[row], 1)[1]
        if distances[:, near].argmin() == row and distances[row, near] < RATIO * second:
            found.append((row, int(near)))
    return found


@pytest.mark.parametrize(("rows", "columns"), [(60, 90), (90, 60), (1, 5), (5, 2)])
def test_mutual_neighbours_are_those_of_all_distances(rows: int, columns: int) -> None:
    first, second = scene(3, 2, points=max(rows, columns), noise=0.12)
    a, b = first[:rows], second[:columns]
    found = mutual_nearest(a, b)
    assert list(zip(*(side.tolist() for side in found), strict=True)) == naive(a, b)
    assert len(found[0]) > 0


def test_too_few_descriptors_have_no_neighbours() -> None:
    some, none = scene(0, 1, points=5)[0], np.zeros((0, 32), np.float32)
    for a, b in (some, none), (none, some), (none, none), (some, some[:1]):
        assert [len(side) for side in mutual_nearest(a, b)] == [0, 0]


def test_votes_of_8_bits_are_those_of_the_descriptors() -> None:
    images = [*scene(1, 3, points=700, noise=0.1), *scene(2, 2, points=300, noise=0.1), np.zeros((0, 32), np.float32)]
    best = BestDescriptors(len(images) + 1)  # one image is never read
    for row, descriptors in enumerate(images):
        best.add(row, descriptors)
    pairs = np.array([(a, b) for a in range(7) for b in range(a + 1, 7)], np.int32)
    votes = best.count_votes(pairs, 1)
    padded = [*images, np.zeros((0, 32), np.float32)]
    exact = np.array([len(mutual_nearest(padded[a][:BEST], padded[b][:BEST])[0]) for a, b in pairs.tolist()])
    assert np.abs(votes - exact).max() <= 0.03 * exact.max() and votes.dtype == np.float32
    same = np.array([(a < 3) == (b < 3) and b < 5 for a, b in pairs.tolist()])
    assert votes[same].min() > 100 > 20 > votes[~same].max()
    for threads in 2, 5:
        np.testing.assert_array_equal(best.count_votes(pairs, threads), votes)
    assert best.count_votes(pairs[:0], 2).shape == (0,)


def test_stored_descriptors_keep_their_norm() -> None:
    best = BestDescriptors(1)
    descriptors = unit(np.random.default_rng(0).standard_normal((50, 128)).astype(np.float32))
    best.add(0, descriptors)
    np.testing.assert_allclose(best.read(0), descriptors, atol=2e-3)
    np.testing.assert_allclose(np.linalg.norm(best.read(0), axis=1), 1, atol=2e-3)
