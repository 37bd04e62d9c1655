"""Which of many pairs to try first: those that are likely to show one scene, by any of several hints."""

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from lgbatch.errors import ItemError
from lgbatch.pairing.retrieval import train_vocabulary, vlad
from lgbatch.pairing.spatial import local_metres
from lgbatch.photos.metadata import read_metadata
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import MatchStore
from lgbatch.types import FloatArray, ImageRef, Pair

Hints = NDArray[np.float64]
"""(H, P): H hints, a row each, for P pairs. Larger is more likely; -inf tells nothing."""
_VOCABULARY_PHOTOS = 200
_BLOCK = 1024
"""Pairs whose vectors are in memory at a time."""


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
    vectors = _vlad_vectors([ref.name for ref in refs], features)
    distances = np.linalg.norm(np.subtract(*(_positions(refs)[side] for side in (first, second))), axis=1)
    return np.stack(
        [
            np.array([record.matches if record else -np.inf for record in records], np.float64),
            -np.abs(first - second).astype(np.float64),
            _similarities(vectors, first, second),
            np.where(np.isnan(distances), -np.inf, -distances),
        ]
    )


def _similarities(vectors: FloatArray, first: NDArray[np.intp], second: NDArray[np.intp]) -> NDArray[np.float64]:
    """The products of the vectors of P pairs, (P,), by blocks: the vectors of all pairs would not fit in the memory."""
    similarities = np.empty(len(first))
    for start in range(0, len(first), _BLOCK):
        rows = slice(start, start + _BLOCK)
        similarities[rows] = np.einsum("pv,pv->p", vectors[first[rows]], vectors[second[rows]], dtype=np.float64)
    return similarities


def _positions(refs: Sequence[ImageRef]) -> NDArray[np.float64]:
    """(N, 2) in metres by GPS; NaN where there is none."""
    metadata = [read_metadata(ref.path) for ref in refs]
    degrees = np.array([(m.latitude, m.longitude) if m else (None, None) for m in metadata], np.float64).reshape(-1, 2)
    positions = np.full(degrees.shape, np.nan)
    located = ~np.isnan(degrees).any(1)
    if located.any():
        positions[located] = local_metres(degrees[located, 0], degrees[located, 1])
    return positions


def _vlad_vectors(names: Sequence[str], features: FeatureStore) -> FloatArray:
    """(N, V), of norm 1, or 0 for images whose features cannot be read."""

    def descriptors(name: str) -> FloatArray | None:
        try:
            return features.read(name).descriptors
        except ItemError:
            return None

    step = -(-len(names) // _VOCABULARY_PHOTOS)
    vocabulary = train_vocabulary([d for name in names[::step] if (d := descriptors(name)) is not None and len(d)])
    vectors = np.zeros((len(names), vocabulary.size), np.float32)
    for row, name in enumerate(names):
        if (described := descriptors(name)) is not None and len(described):
            vectors[row] = vlad(described, vocabulary)
    return vectors
