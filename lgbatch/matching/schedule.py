"""The order of pairs and their batches. Pure functions: keypoint counts and image ids in, batches out.

Two goals. Few reads: each image is read few times although few images fit in memory. The images, in name order, are cut
into tiles; a tile stays in memory while the images after it pass by in narrow strips. Little padding: within such a
block, pairs of similar lengths share a batch.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.integer[Any]]
Batch = tuple[int, ...]
"""Pairs that are matched together, as positions in the list of pairs that was scheduled."""
MAX_PADDING = 0.05
"""Largest fraction of a batch that may be padding."""
GPU_PADDING = 0.2
"""The same on a GPU, which large batches suit better. With the lengths of real pairs after pruning, 4.5% of all batches
are padding, and 78% of their size is used instead of 32% (measured)."""
LENGTH_STEP = 64
"""Pairs are sorted by the first length, rounded to this step, then by the second: among many pairs of similar first
length, those of similar second length come together."""


def plan(
    counts: Sequence[int],
    pairs: Sequence[tuple[int, int]] | Ints,
    *,
    images: int,
    tokens: int,
    padding: float = MAX_PADDING,
) -> Iterator[Batch]:
    """Order pairs into batches. Every pair is in exactly one batch; equal input gives equal output.

    counts: keypoints of each image, by id.
    pairs: (P, 2) image ids, all of images with at least one keypoint. An int32 array of 8 bytes a pair needs 24 more.
    images: images that fit in memory at once; the least recently used is dropped first.
    tokens: most keypoints of a batch, of both sides and padded to its longest. A larger pair is a batch of its own.
    padding: largest fraction of a batch that may be padding.
    """
    if not len(pairs):
        return
    ids, keypoints = np.asarray(pairs), np.asarray(counts, np.int32)
    for block in _ordered_blocks(ids, keypoints, images):
        for batch in _cut(_iterate_lengths(ids, keypoints, block), tokens, padding):
            yield tuple(block[batch].tolist())


def pack(lengths: Sequence[tuple[int, int]], tokens: int, padding: float = MAX_PADDING) -> list[Batch]:
    """Group pairs of similar lengths into batches of up to `tokens` points including padding.

    `lengths` are the points of both sides of each pair. `padding` is the largest fraction of a batch that may be
    padding. Returns positions in `lengths`, each exactly once.
    """
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i][0] // LENGTH_STEP, lengths[i][1]))
    return [tuple(order[i] for i in batch) for batch in _cut([lengths[i] for i in order], tokens, padding)]


def _ordered_blocks(ids: Ints, keypoints: Ints, images: int) -> Iterator[Ints]:
    """Positions of the pairs of each block, in matching order. Keys are sorted block by block, to save memory."""
    rounded = keypoints // LENGTH_STEP
    blocks = _block_numbers(ids, images)
    if blocks is None:
        yield _matching_order(ids, rounded)
        return
    order = np.argsort(blocks, kind="stable")
    blocks = blocks[order]
    for rows in np.split(order, np.flatnonzero(blocks[1:] != blocks[:-1]) + 1):
        yield rows[_matching_order(ids[rows], rounded)]


def _matching_order(ids: Ints, rounded: Ints) -> Ints:
    """Positions of the pairs of a block in matching order, given the rounded lengths of the images."""
    return np.lexsort((ids.max(axis=1), ids.min(axis=1), rounded[ids[:, 1]], rounded[ids[:, 0]]))


def _iterate_lengths(ids: Ints, keypoints: Ints, order: Ints) -> Iterator[list[int]]:
    """Keypoints of both images of the pairs in this order, as lists, which unpack faster.

    Converts 1024 at a time, since a block may be all pairs.
    """
    for start in range(0, len(order), 1024):
        yield from keypoints[ids[order[start : start + 1024]]].tolist()


def _cut(lengths: Iterable[Sequence[int]], tokens: int, padding: float = MAX_PADDING) -> Iterator[list[int]]:
    """Cut a sequence of pairs into batches of consecutive pairs, within `tokens` and `padding`."""
    batch: list[int] = []
    longest, points = (0, 0), 0
    for position, (m, n) in enumerate(lengths):
        padded = max(longest[0], m), max(longest[1], n)
        size = (len(batch) + 1) * sum(padded)
        if batch and (size > tokens or size - points - m - n > padding * size):
            yield batch
            batch, padded, points = [], (m, n), 0
        batch.append(position)
        longest, points = padded, points + m + n
    if batch:
        yield batch


def _block_numbers(ids: Ints, images: int) -> Ints | None:
    """The block of each pair; blocks are matched in ascending order.

    None if all images fit in memory: there is one block. Else a tile takes three quarters of the memory: its own pairs
    come first, then those with each strip of later images. A strip takes an eighth, so that only images of the strip
    before are dropped for it.
    """
    tile, strip = max(1, images * 3 // 4), max(1, images // 8)
    low, high = ids.min(axis=1), ids.max(axis=1)
    if high.max() < images:
        return None
    row = low // tile
    beyond = high - (row + 1) * tile
    column = np.where(beyond < 0, 0, 1 + beyond // strip)
    blocks: Ints = row.astype(np.int64) * (int(column.max()) + 1) + column
    return blocks
