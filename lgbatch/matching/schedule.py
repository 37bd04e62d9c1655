"""In which order, and in which batches, pairs are matched. Pure: counts and ids in, groups out.

Two things are arranged. Pairs follow each other so that each image is read seldom though few are in memory: the
images, in name order, are cut into tiles; a tile stays while the images that follow it pass by in narrow strips.
And within such a block, pairs of about the same lengths share a batch, so that little of it is padding.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Batch = tuple[int, ...]
"""Pairs to be matched together: positions in the list of pairs that was scheduled."""
PADDING = 0.05
"""Most of a batch that may be padding."""
STEP = 64
"""Pairs are ordered by lengths in steps of this, so that of many that are about as long on one side, those that are
about as long on the other come together."""


def plan(
    counts: Sequence[int], pairs: Sequence[tuple[int, int]] | Ints, *, images: int, tokens: int
) -> Iterator[Batch]:
    """Order pairs into batches.

    counts: keypoints of each image, by id; pairs: (P, 2) ids, no image with 0 keypoints among them (as an array they
    take a fifth of the memory). `images` is how many images' features may be in memory at once, the least recently
    used leaving first; `tokens` how many keypoints a batch may hold when it is padded to its longest (a single pair
    that exceeds it is a batch of its own). Every pair is in exactly one batch; equal input gives equal output.
    """
    if not len(pairs):
        return
    ids = np.asarray(pairs, dtype=np.int64)
    lengths = np.asarray(counts, dtype=np.int64)[ids]
    for block in _in_blocks(ids, lengths, images):
        for batch in _alike(_rows(lengths, block), tokens):
            yield tuple(block[batch].tolist())


def pack(lengths: Sequence[tuple[int, int]], tokens: int) -> list[Batch]:
    """Group pairs, given the lengths of their sides, into batches of up to `tokens` points when padded.

    Like goes with like: no more than PADDING of a batch is padding. Returns positions in `lengths`, each once.
    """
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i][0] // STEP, lengths[i][1]))
    return [tuple(order[i] for i in batch) for batch in _alike([lengths[i] for i in order], tokens)]


def _in_blocks(ids: Ints, lengths: Ints, images: int) -> list[Ints]:
    """Positions of pairs, block by block, in the order in which they are matched."""
    blocks, coarse = _blocks(ids, images), lengths // STEP
    order = np.lexsort((ids.max(axis=1), ids.min(axis=1), coarse[:, 1], coarse[:, 0], blocks))
    return np.split(order, np.flatnonzero(np.diff(blocks[order])) + 1)


def _rows(lengths: Ints, order: Ints) -> Iterator[list[int]]:
    """Rows in this order as lists, which are faster to take apart; few at once, since a block may be all pairs."""
    for start in range(0, len(order), 1024):
        yield from lengths[order[start : start + 1024]].tolist()


def _alike(lengths: Iterable[Sequence[int]], tokens: int) -> Iterator[list[int]]:
    """Cut a row of pairs into batches of neighbours that waste little when padded to their longest."""
    batch: list[int] = []
    longest, real = (0, 0), 0
    for position, (m, n) in enumerate(lengths):
        padded = max(longest[0], m), max(longest[1], n)
        size = (len(batch) + 1) * sum(padded)
        if batch and (size > tokens or size - real - m - n > PADDING * size):
            yield batch
            batch, padded, real = [], (m, n), 0
        batch.append(position)
        longest, real = padded, real + m + n
    if batch:
        yield batch


def _blocks(ids: Ints, images: int) -> Ints:
    """A number for each pair: equal in a block, ascending in the order in which blocks are matched.

    What fits into the memory is one block. Else a tile takes three quarters of it; its own pairs come first, then
    those with each strip after it. A strip takes an eighth, so that what leaves for the next is of the one before.
    """
    tile, strip = max(1, images * 3 // 4), max(1, images // 8)
    low, high = ids.min(axis=1), ids.max(axis=1)
    if high.max() < images:
        return np.zeros_like(low)
    row = low // tile
    beyond = high - (row + 1) * tile
    column = np.where(beyond < 0, 0, 1 + beyond // strip)
    blocks: Ints = row * (column.max() + 1) + column
    return blocks
