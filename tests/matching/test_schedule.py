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


def ragged(images: int) -> list[int]:
    return np.random.default_rng(0).integers(100, 2049, images).tolist()


def neighbours(images: int, window: int) -> Pairs:
    return [(i, j) for i in range(images) for j in range(i + 1, min(images, i + 1 + window))]


def padded(counts: list[int], pairs: Pairs, batch: Batch) -> int:
    """Tokens of a batch, each side padded to its longest."""
    return len(batch) * sum(max(counts[pairs[position][side]] for position in batch) for side in (0, 1))


def padding(counts: list[int], pairs: Pairs, batches: list[Batch]) -> float:
    """Share of the tokens of all batches that hold no keypoint."""
    tokens = sum(padded(counts, pairs, batch) for batch in batches)
    return 1 - sum(counts[a] + counts[b] for a, b in pairs) / tokens


def reads(pairs: Pairs, batches: list[Batch], images: int) -> int:
    """How often features are read when the least recently used leave a memory of so many images."""
    memory: OrderedDict[int, None] = OrderedDict()
    read = 0
    for batch in batches:
        for image in (image for position in batch for image in pairs[position]):
            if image not in memory:
                read += 1
                while len(memory) >= images:
                    memory.popitem(last=False)
            memory[image] = None
            memory.move_to_end(image)
    return read


@given(job=jobs(), images=st.integers(1, 40), tokens=st.integers(1, 20_000))
@settings(max_examples=100, deadline=None)
def test_every_pair_is_in_one_batch_that_holds_it(job: tuple[list[int], Pairs], images: int, tokens: int) -> None:
    counts, pairs = job
    batches = list(plan(counts, pairs, images=images, tokens=tokens))
    assert sorted(position for batch in batches for position in batch) == list(range(len(pairs)))
    for batch in batches:
        assert len(batch) == 1 or padded(counts, pairs, batch) <= tokens
        assert all(type(position) is int for position in batch)
    assert batches == list(plan(counts, pairs, images=images, tokens=tokens))


def test_no_pairs_are_no_batches() -> None:
    assert list(plan([5, 7], [], images=10, tokens=100)) == []
    assert pack([], tokens=100) == []


@given(st.lists(st.tuples(st.integers(1, 2048), st.integers(1, 2048)), max_size=40), st.integers(1, 20_000))
def test_packing_keeps_each_pair_once_and_wastes_little(lengths: Pairs, tokens: int) -> None:
    batches = pack(lengths, tokens)
    assert sorted(position for batch in batches for position in batch) == list(range(len(lengths)))
    for batch in batches:
        size = len(batch) * sum(max(lengths[position][side] for position in batch) for side in (0, 1))
        real = sum(sum(lengths[position]) for position in batch)
        assert len(batch) == 1 or (size <= tokens and size - real <= 0.05 * size)


@pytest.mark.parametrize("tokens", [4096, 131_072])
def test_little_is_padding(tokens: int) -> None:
    counts = ragged(300)
    for pairs in list(combinations(range(300), 2)), neighbours(300, 10):
        batches = list(plan(counts, pairs, images=100, tokens=tokens))
        assert padding(counts, pairs, batches) < 0.05


def test_equal_lengths_fill_the_batches() -> None:
    pairs = list(combinations(range(100), 2))
    batches = list(plan([1000] * 100, pairs, images=100, tokens=32_768))
    assert Counter(len(batch) for batch in batches) == {16: 309, 6: 1}


@pytest.mark.parametrize("pairs", [list(combinations(range(300), 2)), neighbours(300, 20)])
def test_each_image_is_read_once_when_all_fit(pairs: Pairs) -> None:
    batches = list(plan(ragged(300), pairs, images=300, tokens=4096))
    assert reads(pairs, batches, 300) == 300


def test_each_image_is_read_about_once_when_neighbours_fit() -> None:
    pairs = neighbours(1000, 20)
    batches = list(plan(ragged(1000), pairs, images=100, tokens=4096))
    assert reads(pairs, batches, 100) < 1100


def test_images_are_read_seldom_when_few_fit() -> None:
    pairs = list(combinations(range(400), 2))
    batches = list(plan(ragged(400), pairs, images=80, tokens=4096))
    # Rows of tiles, each with all that follow: 400 + 340 + 280 + ... + 40 images.
    assert reads(pairs, batches, 80) <= 1540


def test_a_block_needs_no_more_images_than_fit() -> None:
    pairs = list(combinations(range(90), 2))
    batches = list(plan([500] * 90, pairs, images=30, tokens=10**9))
    assert max(len({image for i in batch for image in pairs[i]}) for batch in batches) <= 30
    assert len(batches) < 60
