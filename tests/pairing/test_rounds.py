"""Rounds of pairs: candidates, pairs along verified ones, joins. The scene is known; nothing is matched."""

import time
from itertools import combinations

import numpy as np
import pytest

from lgbatch.pairing.rounds import Limits, Proposal, Rounds


def ring(images: int, reach: int) -> dict[tuple[int, int], int]:
    """Inliers of images on a ring that overlap with `reach` neighbours on each side: the nearer, the more."""
    distances = {(a, b): min(b - a, images - b + a) for a, b in combinations(range(images), 2)}
    return {pair: 400 // distance for pair, distance in distances.items() if distance <= reach}


def candidates(images: int, right: int, wrong: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The next `right` images of a ring, then `wrong` ones by chance."""
    generator, ranks = np.random.default_rng(seed), {}
    for image in range(images):
        others = [(image + step) % images for step in range(1, right + 1)]
        for rank, other in enumerate([*others, *generator.permutation(images)[:wrong]]):
            pair = min(image, int(other)), max(image, int(other))
            if pair[0] != pair[1]:
                ranks[pair] = min(ranks.get(pair, rank), rank)
    return np.array(list(ranks), np.int32), np.array(list(ranks.values()), np.float32)


def run(rounds: Rounds, scene: dict[tuple[int, int], int]) -> list[Proposal]:
    tried: list[Proposal] = []
    while proposals := rounds.propose():
        rounds.report([scene.get((a, b), 0) for a, b, _ in proposals])
        tried += proposals
    pairs = [(a, b) for a, b, _ in tried]
    assert len(pairs) == len(set(pairs)) and all(a < b for a, b in pairs)
    return tried


def test_rounds_find_the_pairs_that_no_candidate_names() -> None:
    scene = ring(60, 6)
    tried = run(Rounds(60, *candidates(60, 2, 10)), scene)
    found = {(a, b) for a, b, _ in tried} & scene.keys()
    assert sum(scene[pair] for pair in found) >= 0.95 * sum(scene.values())
    assert len(tried) < 0.5 * 60 * 59 / 2
    assert {why for *_, why in tried} >= {"candidate", "neighbours"}


def test_lists_end_after_failures() -> None:
    limits = Limits(first=2, step=2, patience=3, joins=0)
    pairs = np.array([(0, other) for other in range(1, 20)], np.int32)
    tried = run(Rounds(20, pairs, np.arange(19, dtype=np.float32), limits), {})
    by_first = [b for a, b, _ in tried if a == 0]
    assert by_first[:4] == [1, 2, 3, 4]  # the list of image 0 ends in its second round
    assert {b for _, b, _ in tried} == set(range(1, 20))  # the other lists have one pair each


def test_images_with_enough_verified_pairs_try_no_more() -> None:
    everything = dict.fromkeys(combinations(range(80), 2), 100)
    pairs = np.array(list(everything), np.int32)
    ranks = (pairs[:, 1] - pairs[:, 0]).astype(np.float32)
    tried = run(Rounds(80, pairs, ranks, Limits(links=10)), everything)
    assert len(tried) / 80 <= 20


@pytest.mark.parametrize("joined", [True, False])
def test_groups_are_joined_at_the_end(joined: bool) -> None:
    scene = {pair: 100 for side in (0, 30) for pair in combinations(range(side, side + 30), 2)}
    if joined:
        scene[7, 40] = 60
    ranks = dict.fromkeys(scene, 0.0) | {(7, other): 20.0 + other for other in range(30, 60)}
    rounds = Rounds(60, np.array(list(ranks), np.int32), np.array(list(ranks.values()), np.float32), Limits(links=12))
    tried = run(rounds, scene)
    assert [len(group) for group in rounds.groups()] == ([60] if joined else [30, 30])
    assert any(why == "join" for *_, why in tried)
    assert sum((a < 30) != (b < 30) for a, b, _ in tried) <= 20


def test_the_same_results_give_the_same_pairs() -> None:
    scene, listed = ring(50, 5), candidates(50, 2, 8)
    assert run(Rounds(50, *listed), scene) == run(Rounds(50, *listed), scene)


def test_no_candidates_and_no_images() -> None:
    empty = np.zeros((0, 2), np.int32), np.zeros(0, np.float32)
    assert Rounds(3, *empty).propose() == [] and Rounds(0, *empty).propose() == []


def test_pairs_per_image_do_not_grow_with_the_images() -> None:
    counts, start = [], time.process_time()
    for images in (300, 3000):
        tried = run(Rounds(images, *candidates(images, 3, 10)), ring(images, 8))
        counts.append(len(tried) / images)
    assert counts[1] == pytest.approx(counts[0], rel=0.1)
    assert time.process_time() - start < 20
