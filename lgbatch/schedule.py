"""In which order, and in which batches, pairs are matched. Pure: counts and ids in, groups out.

Two things are arranged. Pairs follow each other so that each image is read seldom though few are in memory: the
images, in name order, are cut into tiles; a tile stays while the images that follow it pass by in narrow strips.
And within such a block, pairs of about the same lengths share a batch, so that little of it is padding.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

PADDING = 0.05
"""Most of a batch that may be padding, where pairs of unlike lengths share it."""


@dataclass(frozen=True)
class Batch:
    """Pairs to be matched together."""

    pairs: tuple[int, ...]
    """Positions in the list of pairs that was scheduled."""
    lengths: tuple[int, int]
    """Rows to which the first and the second images' keypoints are padded."""


def padded_length(count: int) -> int:
    """The length in use that holds `count` keypoints: multiples of 32, above 1024 of 64."""
    step = 32 if count <= 1024 else 64
    return -(-count // step) * step


def plan(counts: Sequence[int], pairs: Sequence[tuple[int, int]], *, images: int, tokens: int) -> Iterator[Batch]:
    """Order pairs into batches.

    counts: keypoints of each image, by id; pairs: ids, no image with 0 keypoints among them. `images` is how many
    images' features may be in memory at once, the least recently used leaving first; `tokens` how many padded
    keypoints a batch may hold (a single pair that exceeds it is a batch of its own). Every pair is in exactly one
    batch; equal input gives equal output.
    """
    if not pairs:
        return
    ids = np.asarray(pairs, dtype=np.int64)
    lengths = np.array([padded_length(count) for count in counts], dtype=np.int64)[ids]
    keypoints = np.asarray(counts, dtype=np.int64)[ids].sum(axis=1)
    blocks = _blocks(ids, images)
    order = np.lexsort((ids.max(axis=1), ids.min(axis=1), lengths[:, 1], lengths[:, 0], blocks))
    columns = (order, *(values[order] for values in (lengths[:, 0], lengths[:, 1], keypoints, blocks)))
    batch: list[int] = []
    shape, filled, current = (0, 0), 0, 0
    for position, m, n, count, block in zip(*(values.tolist() for values in columns), strict=True):
        longest = max(shape[0], m), max(shape[1], n)
        size = (len(batch) + 1) * sum(longest)
        alike = shape == (m, n) or size - filled - count <= PADDING * size
        if batch and not (alike and size <= tokens and block == current):
            yield Batch(tuple(batch), shape)
            batch, longest, filled = [], (m, n), 0
        batch.append(position)
        shape, filled, current = longest, filled + count, block
    yield Batch(tuple(batch), shape)


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
