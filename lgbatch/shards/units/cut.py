"""Cut the graph of pairs into parts of equal size that have few images each. Pure: ids in, groups out."""

import numpy as np
from numpy.typing import NDArray

from lgbatch.types import IntArray

Rows = NDArray[np.int64]


def cut_pairs(ids: IntArray, parts: int) -> list[Rows]:
    """Cut pairs (P, 2) of image ids into so many groups of rows; each row is in exactly one.

    The images, in the order of their ids, are cut into blocks, and the table of all pairs into the tiles of two blocks
    each. Pairs are taken tile by tile along the rows of this table, back and forth, and cut at equal numbers. The size
    of the blocks is the one that gives the groups the fewest images. Equal input gives equal output.
    """
    parts = min(parts, len(ids))
    if parts <= 1:
        return [np.arange(len(ids))] if len(ids) else []
    images = int(ids.max()) + 1
    ends = [len(ids) * part // parts for part in range(1, parts)]
    sizes = [side << power for power in range(1, max(2, images.bit_length())) for side in (2, 3)]
    groups = [np.split(_order(ids, size), ends) for size in sizes]
    best = min(groups, key=lambda found: sum(len(np.unique(ids[rows])) for rows in found))
    return [np.sort(rows) for rows in best]


def _order(ids: IntArray, block: int) -> Rows:
    """Rows of the pairs, tile by tile."""
    low, high = ids.min(axis=1), ids.max(axis=1)
    row, column = low // block, high // block
    direction = np.where(row % 2, -column, column)
    return np.lexsort((high, low, direction, row))
