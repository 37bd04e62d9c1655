"""Ranked lists of pairs and their union."""

import numpy as np

from lgbatch.pairing.evidence.lists import Ranked, Source, union

NAMES = ["a", "b", "c", "d"]


def test_the_union_has_each_pair_once_with_its_best_rank_and_all_sources() -> None:
    looks = Ranked.from_table(Source.LOOKS, np.array([0, 2]), np.array([[2, 1, -1], [1, 0, 3]]))
    order = Ranked(Source.ORDER, np.array([[1, 0], [1, 2]]), np.array([0, 4], np.float32))
    found = union(NAMES, [looks, order])
    assert found.pairs.tolist() == [[0, 1], [0, 2], [1, 2], [2, 3]]
    assert found.rank.tolist() == [0, 0, 0, 2]
    assert found.score.tolist() == [0] * 4
    assert found.sources.tolist() == [Source.LOOKS | Source.ORDER, Source.LOOKS, Source.LOOKS | Source.ORDER, 1]
    assert [array.dtype for array in (found.pairs, found.rank, found.score, found.sources)] == [
        np.int32,
        np.float32,
        np.float32,
        np.uint8,
    ]
    assert found.best(1).as_pairs() == [("a", "b"), ("a", "c"), ("b", "c")]


def test_a_union_of_nothing_is_empty() -> None:
    for lists in [], [Ranked.from_table(Source.NEAR, np.zeros(0, np.int64), np.zeros((0, 5), np.int64))]:
        found = union(NAMES, lists)
        assert found.pairs.shape == (0, 2) and len(found.best(3).as_pairs()) == 0


def test_scores_rank_the_pairs_of_each_image() -> None:
    pairs, scores = np.array([[0, 1], [0, 2], [1, 2], [2, 3]]), np.array([5.0, 9, 9, 1])
    found = union(NAMES, [Ranked.by_score(Source.LOOKS, pairs, scores)])
    assert found.rank.tolist() == [1, 0, 0, 0]  # c: a, b, d; d has c only
    only_c = union(NAMES, [Ranked.by_score(Source.LOOKS, pairs, scores, np.array([2]))])
    assert only_c.pairs.tolist() == [[0, 2], [1, 2], [2, 3]] and only_c.rank.tolist() == [0, 1, 2]


def test_each_image_has_its_best_pairs_in_a_large_set() -> None:
    rng = np.random.default_rng(0)
    table = np.stack([rng.permutation(300)[:10] for _ in range(300)])
    table = np.where(table == np.arange(300)[:, None], -1, table)
    found = union(list(map(str, range(300))), [Ranked.from_table(Source.NEAR, np.arange(300), table)])
    expected: dict[tuple[int, int], int] = {}
    for row, others in enumerate(table.tolist()):
        for rank, other in enumerate(others):
            if other >= 0:
                key = (min(row, other), max(row, other))
                expected[key] = min(rank, expected.get(key, 99))
    assert dict(zip(map(tuple, found.pairs.tolist()), found.rank.tolist(), strict=True)) == expected
    assert sorted(expected) == list(map(tuple, found.pairs.tolist()))
