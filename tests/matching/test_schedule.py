"""The schedule: every pair in one batch, little padding, few reads."""

from collections import Counter, OrderedDict
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lgbatch.matching.schedule import Batch, pack, plan

Pairs = list[tuple[int, int]]


@st.composite
def jobs(draw: st.DrawFn) -> tuple[list[int], Pairs]:
    counts = draw(st.lists(st.one_of(st.integers(1, 2100), st.sampled_from([512, 2048])), min_size=2, max_size=30))
    ids = st.integers(0, len(counts) - 1)
    return counts, draw(st.lists(st.tuples(ids, ids), max_size=60))


def random_counts(images: int) -> list[int]:
    return np.random.default_rng(0).integers(100, 2049, images).tolist()


def neighbours(images: int, window: int) -> Pairs:
    return [(i, j) for i in range(images) for j in range(i + 1, min(images, i + 1 + window))]


def padded_tokens(counts: list[int], pairs: Pairs, batch: Batch) -> int:
    """Tokens of a batch, with each side padded to its longest."""
    return len(batch) * sum(max(counts[pairs[position][side]] for position in batch) for side in (0, 1))


def padding_fraction(counts: list[int], pairs: Pairs, batches: list[Batch]) -> float:
    """Fraction of the tokens of all batches that are padding."""
    tokens = sum(padded_tokens(counts, pairs, batch) for batch in batches)
    return 1 - sum(counts[a] + counts[b] for a, b in pairs) / tokens


def reads(pairs: Pairs, batches: list[Batch], images: int) -> int:
    """Reads of features with a least recently used cache of so many images."""
    cache: OrderedDict[int, None] = OrderedDict()
    count = 0
    for batch in batches:
        for image in (image for position in batch for image in pairs[position]):
            if image not in cache:
                count += 1
                while len(cache) >= images:
                    cache.popitem(last=False)
            cache[image] = None
            cache.move_to_end(image)
    return count


@given(job=jobs(), images=st.integers(1, 40), tokens=st.integers(1, 20_000))
@settings(max_examples=100, deadline=None)
def test_every_pair_is_in_exactly_one_batch_within_the_token_limit(
    job: tuple[list[int], Pairs], images: int, tokens: int
) -> None:
    counts, pairs = job
    batches = list(plan(counts, pairs, images=images, tokens=tokens))
    assert sorted(position for batch in batches for position in batch) == list(range(len(pairs)))
    for batch in batches:
        assert len(batch) == 1 or padded_tokens(counts, pairs, batch) <= tokens
        assert all(type(position) is int for position in batch)
    assert batches == list(plan(counts, pairs, images=images, tokens=tokens))


def test_scheduling_no_pairs_returns_no_batches() -> None:
    assert list(plan([5, 7], [], images=10, tokens=100)) == []
    assert pack([], tokens=100) == []


@given(st.lists(st.tuples(st.integers(1, 2048), st.integers(1, 2048)), max_size=40), st.integers(1, 20_000))
def test_pack_puts_each_pair_in_one_batch_with_little_padding(lengths: Pairs, tokens: int) -> None:
    batches = pack(lengths, tokens)
    assert sorted(position for batch in batches for position in batch) == list(range(len(lengths)))
    for batch in batches:
        size = len(batch) * sum(max(lengths[position][side] for position in batch) for side in (0, 1))
        points = sum(sum(lengths[position]) for position in batch)
        assert len(batch) == 1 or (size <= tokens and size - points <= 0.05 * size)


@pytest.mark.parametrize("tokens", [4096, 131_072])
def test_padding_is_below_five_percent(tokens: int) -> None:
    counts = random_counts(300)
    for pairs in list(combinations(range(300), 2)), neighbours(300, 10):
        batches = list(plan(counts, pairs, images=100, tokens=tokens))
        assert padding_fraction(counts, pairs, batches) < 0.05


def test_pairs_of_equal_lengths_fill_the_batches() -> None:
    pairs = list(combinations(range(100), 2))
    batches = list(plan([1000] * 100, pairs, images=100, tokens=32_768))
    assert Counter(len(batch) for batch in batches) == {16: 309, 6: 1}


@pytest.mark.parametrize("pairs", [list(combinations(range(300), 2)), neighbours(300, 20)])
def test_each_image_is_read_once_if_all_fit_in_memory(pairs: Pairs) -> None:
    batches = list(plan(random_counts(300), pairs, images=300, tokens=4096))
    assert reads(pairs, batches, 300) == 300


def test_each_image_is_read_about_once_if_its_neighbours_fit_in_memory() -> None:
    pairs = neighbours(1000, 20)
    batches = list(plan(random_counts(1000), pairs, images=100, tokens=4096))
    assert reads(pairs, batches, 100) < 1100


def test_tiles_limit_the_reads_if_few_images_fit_in_memory() -> None:
    pairs = list(combinations(range(400), 2))
    batches = list(plan(random_counts(400), pairs, images=80, tokens=4096))
    # Each tile of 60 images is read with all images after it: 400 + 340 + 280 + ... + 40.
    assert reads(pairs, batches, 80) <= 1540


def test_a_batch_has_no_more_images_than_fit_in_memory() -> None:
    pairs = list(combinations(range(90), 2))
    batches = list(plan([500] * 90, pairs, images=30, tokens=10**9))
    assert max(len({image for i in batch for image in pairs[i]}) for batch in batches) <= 30
    assert len(batches) < 60
