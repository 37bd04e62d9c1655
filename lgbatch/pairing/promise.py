"""Which of many pairs to try first: those that are likely to show one scene, by any of several hints."""

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from lgbatch.pairing.evidence.looks import Looks
from lgbatch.pairing.evidence.positions import exif_positions
from lgbatch.pairing.retrieval import similarities_of_pairs
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import MatchStore
from lgbatch.types import ImageRef, Pair

Hints = NDArray[np.float64]
"""(H, P): H hints, a row each, for P pairs. Larger is more likely; -inf tells nothing."""


def most_promising(pairs: Sequence[Pair], images: Collection[str], hints: Hints, count: int) -> list[Pair]:
    """Return `count` of the pairs, in their order: those that rank first among the pairs of one of the `images`.

    A pair ranks by its best hint, then by the sum of its ranks. Deterministic.
    """
    ranks = np.full(hints.shape, len(pairs), np.int64)
    rows_of: dict[str, list[int]] = {image: [] for image in images}
    for row, pair in enumerate(pairs):
        for name in pair:
            if name in rows_of:
                rows_of[name].append(row)
    for rows in map(np.array, filter(None, rows_of.values())):
        order = np.argsort(-hints[:, rows], axis=1, kind="stable")
        ranks[:, rows] = np.minimum(ranks[:, rows], np.argsort(order, axis=1))
    ranks[np.isneginf(hints)] = len(pairs)
    chosen = np.lexsort((ranks.sum(0), ranks.min(0)))[:count]
    return [pairs[row] for row in sorted(chosen)]


def pair_hints(pairs: Sequence[Pair], refs: Sequence[ImageRef], features: FeatureStore, matches: MatchStore) -> Hints:
    """Return hints on pairs of the photos `refs`: matches, order in the folder, similarity, GPS positions."""
    rows = {ref.name: row for row, ref in enumerate(refs)}
    first, second = (np.array([rows[pair[side]] for pair in pairs], np.intp) for side in (0, 1))
    records = [matches.record(pair) for pair in pairs]
    looks = Looks.read([ref.name for ref in refs], features, None, threads=1)
    positions = exif_positions([ref.path for ref in refs])
    distances = np.linalg.norm(positions[first] - positions[second], axis=1)
    return np.stack(
        [
            np.array([record.matches if record else -np.inf for record in records], np.float64),
            -np.abs(first - second).astype(np.float64),
            similarities_of_pairs(looks.vectors, first, second),
            np.where(np.isnan(distances), -np.inf, -distances),
        ]
    )
