"""The order of pairs and their batches. Pure functions: keypoint counts and image ids in, batches out.

Two goals. Few reads: each image is read few times although few images fit in memory. The images, in name order, are cut
into tiles; a tile stays in memory while the images after it pass by in narrow strips. Little padding: within such a
block, pairs of similar lengths share a batch.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Batch = tuple[int, ...]
"""Pairs that are matched together, as positions in the list of pairs that was scheduled."""
MAX_PADDING = 0.05
"""Largest fraction of a batch that may be padding."""
LENGTH_STEP = 64
"""Pairs are sorted by the first length, rounded to this step, then by the second: among many pairs of similar first
length, those of similar second length come together."""


def plan(
    counts: Sequence[int], pairs: Sequence[tuple[int, int]] | Ints, *, images: int, tokens: int
) -> Iterator[Batch]:
    """Order pairs into batches. Every pair is in exactly one batch; equal input gives equal output.

    counts: keypoints of each image, by id.
    pairs: (P, 2) image ids, all of images with at least one keypoint. An array takes a fifth of a list's memory.
    images: images that fit in memory at once; the least recently used is dropped first.
    tokens: most keypoints of a batch, of both sides and padded to its longest. A larger pair is a batch of its own.
    """
    if not len(pairs):
        return
    ids = np.asarray(pairs, dtype=np.int64)
    lengths = np.asarray(counts, dtype=np.int64)[ids]
    for block in _ordered_blocks(ids, lengths, images):
        for batch in _cut(_iterate_rows(lengths, block), tokens):
            yield tuple(block[batch].tolist())


def pack(lengths: Sequence[tuple[int, int]], tokens: int) -> list[Batch]:
    """Group pairs of similar lengths into batches of up to `tokens` points including padding.

    `lengths` are the points of both sides of each pair. Padding is at most MAX_PADDING of a batch. Returns positions in
    `lengths`, each exactly once.
    """
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i][0] // LENGTH_STEP, lengths[i][1]))
    return [tuple(order[i] for i in batch) for batch in _cut([lengths[i] for i in order], tokens)]


def _ordered_blocks(ids: Ints, lengths: Ints, images: int) -> list[Ints]:
    """Positions of the pairs of each block, in matching order."""
    blocks, rounded = _block_numbers(ids, images), lengths // LENGTH_STEP
    order = np.lexsort((ids.max(axis=1), ids.min(axis=1), rounded[:, 1], rounded[:, 0], blocks))
    return np.split(order, np.flatnonzero(np.diff(blocks[order])) + 1)


def _iterate_rows(lengths: Ints, order: Ints) -> Iterator[list[int]]:
    """Rows in this order, as lists, which unpack faster. Converts 1024 at a time, since a block may be all pairs."""
    for start in range(0, len(order), 1024):
        yield from lengths[order[start : start + 1024]].tolist()


def _cut(lengths: Iterable[Sequence[int]], tokens: int) -> Iterator[list[int]]:
    """Cut a sequence of pairs into batches of consecutive pairs, within `tokens` and MAX_PADDING."""
    batch: list[int] = []
    longest, points = (0, 0), 0
    for position, (m, n) in enumerate(lengths):
        padded = max(longest[0], m), max(longest[1], n)
        size = (len(batch) + 1) * sum(padded)
        if batch and (size > tokens or size - points - m - n > MAX_PADDING * size):
            yield batch
            batch, padded, points = [], (m, n), 0
        batch.append(position)
        longest, points = padded, points + m + n
    if batch:
        yield batch


def _block_numbers(ids: Ints, images: int) -> Ints:
    """The block of each pair; blocks are matched in ascending order.

    If all images fit in memory, there is one block. Else a tile takes three quarters of the memory: its own pairs come
    first, then those with each strip of later images. A strip takes an eighth, so that only images of the strip before
    are dropped for it.
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
