"""In which order, and in which batches, pairs are matched. Pure: counts and ids in, groups out.

Two things are arranged. Pairs follow each other so that few images have to be in memory at a time: the images, in
name order, are cut into tiles, and the pairs of one tile with another come together. And within such a block, pairs
of about the same lengths share a batch, so that little of it is padding.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

PADDING = 0.05
"""Most of a batch that may be padding."""


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
    images' features may be in memory at once, `tokens` how many padded keypoints a batch may hold (a single pair
    that exceeds it is a batch of its own). Every pair is in exactly one batch; equal input gives equal output.
    """
    if not pairs:
        return
    ids = np.asarray(pairs, dtype=np.int64)
    lengths = np.array([padded_length(count) for count in counts], dtype=np.int64)[ids]
    order = _order(ids, lengths, max(1, images // 2))
    shapes = lengths[order]
    blocks = (ids // max(1, images // 2))[order]
    start = 0
    for stop in range(1, len(order) + 1):
        full = (stop - start + 1) * int(shapes[start].sum()) > tokens
        if full or stop == len(order) or _differ(shapes, blocks, start, stop):
            m, n = shapes[start].tolist()
            yield Batch(tuple(order[start:stop].tolist()), (m, n))
            start = stop


def _order(ids: Ints, lengths: Ints, tile: int) -> Ints:
    """Positions of the pairs: by tile of the lower and of the higher image, then by padded lengths, then by images.

    Every second row of tiles is walked backwards, so that the last tile of one row is the first of the next.
    """
    low, high = ids.min(1), ids.max(1)
    row, column = low // tile, high // tile
    column = np.where(row % 2 == 0, column, -column)
    return np.lexsort((high, low, lengths[:, 1], lengths[:, 0], column, row))


def _differ(shapes: Ints, blocks: Ints, first: int, second: int) -> bool:
    same_block = sorted(blocks[first].tolist()) == sorted(blocks[second].tolist())
    return not same_block or bool((shapes[first] != shapes[second]).any())


def pack(lengths: Sequence[tuple[int, int]], tokens: int) -> list[list[int]]:
    """Group pairs, given the lengths of their sides, into batches of up to `tokens` points when padded.

    Like goes with like: no more than PADDING of a batch is padding. Returns positions in `lengths`, each once.
    """
    order = sorted(range(len(lengths)), key=lambda i: lengths[i], reverse=True)
    groups: list[list[int]] = []
    longest, real = (0, 0), 0
    for i in order:
        m, n = lengths[i]
        padded = max(longest[0], m), max(longest[1], n)
        size = (len(groups[-1]) + 1) * sum(padded) if groups else 0
        if not groups or size > tokens or real + m + n < (1 - PADDING) * size:
            groups.append([])
            padded, real = (m, n), 0
        groups[-1].append(i)
        longest, real = padded, real + m + n
    return groups
