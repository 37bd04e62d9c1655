"""The pairs of a report: tried, matched, verified; and the matches that are drawn of some of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lgbatch.photos.coordinates import to_upright, upright_size
from lgbatch.report.contents import Contents
from lgbatch.report.database import ids_of_pairs
from lgbatch.report.photos import PhotoRow
from lgbatch.types import BoolArray, FloatArray, IntArray, LongArray, Pair

STEPS = 4095
"""A drawn position is a whole number from 0 to this, over the width or height of the upright photo."""
_DRAWN = 120_000
"""Matches of all pairs that are drawn, 8 bytes each before compression."""
_MOST_OF_PAIR, _LEAST_OF_PAIR = 200, 40


@dataclass(frozen=True, eq=False)
class PairTable:
    """P pairs of photos, each once."""

    ids: IntArray
    """(P, 2) rows of the photos, the smaller one first; pairs in ascending order."""
    matches: IntArray
    """(P,) number of matches; 0 if the pair was tried in vain, or is not matched yet."""
    inliers: IntArray
    """(P,) number of matches that agree with the two-view geometry; 0 if the pair is not verified."""

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.ids)

    def by_photo(self, chosen: BoolArray, photos: int) -> LongArray:
        """Return the number of pairs of each photo that are `chosen`, (P,)."""
        return np.bincount(self.ids[chosen].ravel(), minlength=photos)


def read_pair_table(found: Contents, rows: Sequence[PhotoRow]) -> PairTable:
    """Return the pairs that pairs.txt lists or that have matches, with the counts of the database.

    Without a database, the counts are those of matches.h5 and pairs.jsonl.
    """
    positions = {row.name: i for i, row in enumerate(rows)}
    parts = [_positions(found.tried.names, positions)[found.tried.ids].reshape(-1, 2)]
    counts = [np.zeros((len(parts[0]), 2), np.int32)]
    for ids, count in _counted(found, rows, positions):
        parts.append(ids)
        counts.append(count)
    return _joined(np.concatenate(parts), np.concatenate(counts), len(rows))


def _counted(
    found: Contents, rows: Sequence[PhotoRow], positions: dict[str, int]
) -> list[tuple[IntArray, NDArray[np.int32]]]:
    """Rows of photos (P, 2), -1 for none, and numbers of matches and inliers (P, 2), by source."""
    with found.noting():
        if found.database:
            row_of = np.full(max((row.image_id or 0 for row in rows), default=0) + 1, -1, np.int32)
            for i, row in enumerate(rows):
                row_of[row.image_id or 0] = i
            row_of[0] = -1  # COLMAP's ids start at 1
            return [
                _of_database(found.database.read_num_matches(), row_of, 0),
                _of_database(found.database.read_two_view_geometry_num_inliers(), row_of, 1),
            ]
    sources = []
    with found.noting():
        if found.matches:
            pairs = found.matches.pairs([row.name for row in rows])
            ids = np.array([(positions[a], positions[b]) for a, b in pairs], np.int32).reshape(-1, 2)
            records = [found.matches.record(pair) for pair in pairs]
            sources.append((ids, _counts([(record.matches if record else 0, 0) for record in records])))
    with found.noting():
        ids = np.array([[positions.get(line[end], -1) for end in "ab"] for line in found.rounds], np.int32)
        sources.append((ids.reshape(-1, 2), _counts([(line["matches"], line["inliers"]) for line in found.rounds])))
    return sources


def _counts(values: Sequence[tuple[int, int]]) -> NDArray[np.int32]:
    return np.array(values, np.int32).reshape(-1, 2)


def _of_database(
    found: tuple[Sequence[int], Sequence[int]], row_of: IntArray, column: int
) -> tuple[IntArray, NDArray[np.int32]]:
    image_ids = ids_of_pairs(found[0])
    known = (image_ids < len(row_of)).all(axis=1)
    counts = np.zeros((len(image_ids), 2), np.int32)
    counts[:, column] = found[1]
    return row_of[image_ids[known]], counts[known]


def _positions(names: Sequence[str], positions: dict[str, int]) -> IntArray:
    return np.array([positions.get(name, -1) for name in names], np.int32)


def _joined(ids: IntArray, counts: NDArray[np.int32], photos: int) -> PairTable:
    """Each pair once, with its largest counts, without those of unknown photos."""
    known = (ids >= 0).all(axis=1) & (ids[:, 0] != ids[:, 1])
    ids, counts = np.sort(ids[known], axis=1), counts[known]
    keys, row = np.unique(ids[:, 0].astype(np.int64) * max(photos, 1) + ids[:, 1], return_inverse=True)
    most = np.zeros((len(keys), 2), np.int32)
    np.maximum.at(most, row, counts)
    distinct = np.stack(np.divmod(keys, max(photos, 1)), axis=1).astype(np.int32)
    return PairTable(distinct, most[:, 0], most[:, 1])


@dataclass(frozen=True, eq=False)
class Drawn:
    """The matches that the page draws, D pairs and M matches in all."""

    pairs: IntArray
    """(D,) rows of the pair table."""
    counts: NDArray[np.int32]
    """(D, 2) matches of each pair that are drawn: those that are verified, which come first, and the others."""
    positions: NDArray[np.uint16]
    """(M, 4) x and y in the first and in the second photo, upright, in STEPS of its width and height."""


def draw_matches(found: Contents, rows: Sequence[PhotoRow], table: PairTable) -> Drawn:
    """Choose the pairs whose matches are drawn, and subsample them.

    Each photo has its best pairs; those of photos that are not registered come first. Matches that are left out of a
    pair are chosen evenly over the order of its keypoints, so that what is drawn is the same in every report.
    """
    chosen = choose_drawn(table, [row.model is None for row in rows])
    most = int(np.clip(_DRAWN // max(len(chosen), 1), _LEAST_OF_PAIR, _MOST_OF_PAIR))
    drawn, counts, positions = [], [], []
    reader = _Reader(found, rows)
    for pair in chosen.tolist():
        with found.noting():
            verified, others = reader.matches(*table.ids[pair].tolist())
            kept = _share(len(verified), len(others), most)
            both = np.concatenate([_evenly(part, count) for part, count in zip((verified, others), kept, strict=True)])
            drawn.append(pair)
            counts.append(kept)
            positions.append(both)
    flat = np.concatenate(positions) if positions else np.empty((0, 4), np.uint16)
    return Drawn(np.array(drawn, np.int32), _counts(counts), flat)


def choose_drawn(table: PairTable, missing: Sequence[bool]) -> IntArray:
    """Return the rows of the pairs whose matches are drawn: as many as the budget allows, best of each photo first."""
    order = np.lexsort((-table.matches, -table.inliers))
    order = order[table.matches[order] > 0]
    rank, seen = np.empty(len(order), np.int64), np.zeros(len(missing), np.int64)
    for i, (a, b) in enumerate(table.ids[order].tolist()):
        rank[i] = min(seen[a] - 4 * missing[a], seen[b] - 4 * missing[b])
        seen[a] += 1
        seen[b] += 1
    best: IntArray = np.sort(order[np.argsort(rank, kind="stable")][: _DRAWN // _LEAST_OF_PAIR]).astype(np.int32)
    return best


def _share(verified: int, others: int, most: int) -> tuple[int, int]:
    """How many of the verified matches and of the others are drawn: in proportion, `most` in all."""
    if verified + others <= most:
        return verified, others
    first = round(most * verified / (verified + others))
    return first, most - first


def _evenly(values: NDArray[np.uint16], count: int) -> NDArray[np.uint16]:
    return values if len(values) <= count else values[np.linspace(0, len(values) - 1, count).astype(np.int64)]


class _Reader:
    """Reads the matches of pairs as positions; the keypoints of each photo are read once."""

    def __init__(self, found: Contents, rows: Sequence[PhotoRow]) -> None:
        self._found, self._rows = found, rows
        self._positions: dict[int, NDArray[np.uint16]] = {}

    def matches(self, a: int, b: int) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
        """Return the verified matches and the others, (K, 4) each."""
        indices, verified = self._indices(a, b)
        both = np.concatenate([self._of(a)[indices[:, 0]], self._of(b)[indices[:, 1]]], axis=1)
        return both[verified], both[~verified]

    def _indices(self, a: int, b: int) -> tuple[IntArray, BoolArray]:
        """The matches (K, 2) of two photos, and which are verified (K,)."""
        first, second = self._rows[a], self._rows[b]
        if self._found.database and first.image_id and second.image_id:
            low, high = sorted((first.image_id, second.image_id))
            indices, inliers = self._found.database.matches(low, high), self._found.database.inliers(low, high)
            indices = np.unique(np.concatenate([inliers, indices]), axis=0)
            verified = np.isin(_keys(indices), _keys(inliers))
            return (indices if low == first.image_id else indices[:, ::-1]), verified
        assert self._found.matches
        indices = self._found.matches.indices(Pair(first.name, second.name))
        return indices, np.zeros(len(indices), np.bool_)

    def _of(self, i: int) -> NDArray[np.uint16]:
        if i not in self._positions:
            row = self._rows[i]
            width, height = upright_size((row.width, row.height), row.orientation)
            upright = to_upright(self._keypoints(row), (row.width, row.height), row.orientation)
            share = (upright + 0.5) / (max(width, 1), max(height, 1))
            self._positions[i] = np.rint(np.clip(share, 0, 1) * STEPS).astype(np.uint16)
        return self._positions[i]

    def _keypoints(self, row: PhotoRow) -> FloatArray:
        if self._found.database and row.image_id:
            return self._found.database.keypoints(row.image_id)
        assert self._found.features
        return self._found.features.keypoints(row.name)


def _keys(indices: IntArray) -> LongArray:
    keys: LongArray = indices[:, 0].astype(np.int64) << 32 | indices[:, 1]
    return keys
