"""The graph of pairs is cut into parts of equal size with few images each."""

import numpy as np
import pytest

from lgbatch.pairing.candidates import exhaustive
from lgbatch.shards.steps import count_units
from lgbatch.shards.units.cut import cut_pairs


def images_of(ids: np.ndarray, groups: list[np.ndarray]) -> list[int]:
    return [len(np.unique(ids[rows])) for rows in groups]


@pytest.mark.parametrize("parts", [1, 2, 7, 45, 100])
def test_each_pair_is_in_one_part_and_parts_are_equal(parts: int) -> None:
    ids = exhaustive([str(i) for i in range(10)]).ids
    groups = cut_pairs(ids, parts)
    assert len(groups) == min(parts, 45)
    assert sorted(np.concatenate(groups).tolist()) == list(range(45))
    assert max(map(len, groups)) - min(map(len, groups)) <= 1
    assert all(np.array_equal(a, b) for a, b in zip(groups, cut_pairs(ids, parts), strict=True))


def test_parts_of_all_pairs_have_few_images() -> None:
    ids = exhaustive([str(i) for i in range(200)]).ids
    counts = images_of(ids, cut_pairs(ids, 20))
    assert sum(counts) / len(counts) < 85  # 995 pairs have 45 images or more, and up to 200 in the order of the list


def test_parts_of_a_sequence_are_runs_of_it() -> None:
    first = np.repeat(np.arange(990, dtype=np.int32), 10)
    ids = np.stack([first, first + np.tile(np.arange(1, 11, dtype=np.int32), 990)], axis=1)
    shuffled = np.random.default_rng(0).permutation(len(ids))
    counts = images_of(ids[shuffled], cut_pairs(ids[shuffled], 10))
    assert max(counts) <= 120


def test_no_pairs_have_no_parts() -> None:
    assert cut_pairs(np.zeros((0, 2), np.int32), 3) == []


def test_units_take_ten_minutes_unless_their_number_is_given() -> None:
    assert [count_units(1000, seconds, 0) for seconds in (0.5, 600, 6001)] == [1, 1, 11]
    assert (count_units(1000, 1e6, 7), count_units(3, 1e6, 7)) == (7, 3)
