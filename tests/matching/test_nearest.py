"""Mutual nearest neighbours: exact, in blocks, and by the rules of COLMAP."""

import numpy as np
import pytest

from lgbatch.errors import ItemError
from lgbatch.kernels import library
from lgbatch.matching import nearest
from lgbatch.matching.nearest import MIN_SIMILARITY, match_nearest_pairs, mutual_nearest
from lgbatch.pairing.nearest_descriptors import RATIO
from lgbatch.types import Failure, Features, FloatArray, Matches, Pair


def unit(values: FloatArray) -> FloatArray:
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def descriptors(count: int, seed: int) -> FloatArray:
    return unit(np.random.default_rng(seed).random((count, 128)).astype(np.float32) ** 4)


def noisy(values: FloatArray, noise: float, seed: int) -> FloatArray:
    return unit(values + noise * np.random.default_rng(seed).random(values.shape).astype(np.float32))


def plain(a: FloatArray, b: FloatArray) -> set[tuple[int, int]]:
    """The definition, in double precision."""

    def clear(similarity: np.ndarray) -> dict[int, int]:
        order = np.argsort(-similarity, axis=1)
        best, second = np.take_along_axis(similarity, order[:, :2], axis=1).T
        good = (1 - best < RATIO**2 * (1 - second)) & (best > MIN_SIMILARITY)
        return {int(row): int(order[row, 0]) for row in np.flatnonzero(good)}

    similarity = a.astype(np.float64) @ b.astype(np.float64).T
    forth, back = clear(similarity), clear(similarity.T)
    return {(row, column) for row, column in forth.items() if back.get(column) == row}


@pytest.mark.parametrize("block", [1, 7, 1024])
def test_matches_are_those_of_the_definition(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "_BLOCK", block)
    a = descriptors(60, 0)
    b = np.concatenate([noisy(a[40:10:-1], 0.05, 1), descriptors(33, 2), noisy(a[30:35], 0.06, 3)])
    matches = mutual_nearest(a, b)
    found = set(map(tuple, matches.indices.tolist()))
    assert found == plain(a, b)
    assert 20 <= len(found) < 30  # those with two similar neighbours are not clear
    assert matches.indices.dtype == np.int32
    assert (np.diff(matches.indices[:, 0]) > 0).all()
    assert len(set(matches.indices[:, 1].tolist())) == len(found)
    assert ((matches.scores > MIN_SIMILARITY) & (matches.scores <= 1)).all()


@pytest.mark.skipif(library.int8_unavailable_reason() is not None, reason=str(library.int8_unavailable_reason()))
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (7, 64), (100, 200)])
def test_the_kernel_finds_the_two_largest_products(rows: int, columns: int) -> None:
    rng = np.random.default_rng(rows)
    a = rng.integers(0, 256, (rows, 12), np.uint8)
    b = np.zeros((-(-columns // 64) * 64, 12), np.int8)
    b[:columns] = rng.integers(0, 128, (columns, 12), np.int8)
    panels = np.ascontiguousarray(b.view(np.int32).reshape(-1, 64, 3).swapaxes(1, 2))
    expected = np.sort(a.astype(np.int64) @ b.T.astype(np.int64), axis=1)[:, :-3:-1]
    np.testing.assert_array_equal(np.stack(library.two_largest(a, panels), axis=1), expected)


@pytest.mark.skipif(library.int8_unavailable_reason() is not None, reason=str(library.int8_unavailable_reason()))
def test_similarities_in_eight_bits_lose_no_match(monkeypatch: pytest.MonkeyPatch) -> None:
    a = descriptors(900, 0)
    b = np.concatenate([noisy(a[800:100:-1], 0.12, 1), descriptors(333, 2), noisy(a[300:350], 0.1, 3)])
    matches = mutual_nearest(a, b)
    assert set(map(tuple, matches.indices.tolist())) == plain(a, b) and 300 < len(matches.indices) < 700
    assert len(nearest._promising(a, descriptors(900, 5))) < 90
    assert len(nearest._promising(-a, b)) == len(a)  # the kernel multiplies no negative values
    monkeypatch.setattr(nearest, "int8_unavailable_reason", lambda: "no kernels")
    slow = mutual_nearest(a, b)
    np.testing.assert_array_equal(slow.indices, matches.indices)
    np.testing.assert_allclose(slow.scores, matches.scores, atol=1e-6)


@pytest.mark.parametrize(("first", "second"), [(0, 5), (5, 0), (1, 5), (5, 1)])
def test_without_a_second_neighbour_nothing_matches(first: int, second: int) -> None:
    assert len(mutual_nearest(descriptors(first, 0), descriptors(second, 0)).indices) == 0


def test_a_pair_that_cannot_be_read_is_a_failure_and_the_others_go_on() -> None:
    values = descriptors(30, 0)
    points = np.zeros((30, 2), np.float32)

    def read(name: str) -> Features:
        if name == "bad":
            raise ItemError("no features of bad")
        return Features(points, points[:, 0], values, (9, 9))

    pairs = [Pair("a", "b"), Pair("a", "bad"), Pair("a", "empty"), Pair("b", "a")]
    counts = {"a": 30, "b": 30, "bad": 30, "empty": 0}
    outcomes = list(match_nearest_pairs(pairs, counts, read, 2))
    assert [pair for pair, _ in outcomes] == pairs
    matched = [outcome for _, outcome in outcomes]
    assert [len(outcome.indices) for outcome in matched if isinstance(outcome, Matches)] == [30, 0, 30]
    assert isinstance(matched[1], Failure) and matched[1].name == "bad"
