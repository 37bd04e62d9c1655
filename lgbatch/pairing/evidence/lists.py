"""Candidate pairs: lists of pairs that are ranked for each of their images, and the union of such lists."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntFlag
from typing import Self

import numpy as np
from numpy.typing import NDArray

from lgbatch.types import ByteArray, FloatArray, IntArray, LongArray, PairList


class Source(IntFlag):
    """What proposes a pair."""

    LOOKS = 1
    """The images look alike."""
    NEAR = 2
    """They were taken near each other."""
    ORDER = 4
    """Their names follow each other."""
    MODEL = 8
    """A model has them, with common points or similar views."""


@dataclass(frozen=True)
class Candidates:
    """Pairs of images to try, each once."""

    names: Sequence[str]
    pairs: IntArray
    """(P, 2) int32 rows of `names`, the first less than the second; ascending."""
    rank: FloatArray
    """(P,) float32, the smallest rank of the pair in a list of either of its images over all sources; 0 is best."""
    score: FloatArray
    """(P,) float32, pairs of descriptors that vote for it; 0 if none has been asked."""
    sources: ByteArray
    """(P,) uint8, the sources that propose the pair, as a sum of Source."""

    def best(self, count: int) -> Self:
        """Return the pairs that are among the first `count` of a list."""
        return self.where(self.rank < count)

    def where(self, chosen: NDArray[np.bool_]) -> Self:
        """Return the pairs that are chosen, (P,) bool."""
        return type(self)(self.names, self.pairs[chosen], self.rank[chosen], self.score[chosen], self.sources[chosen])

    def as_pairs(self) -> PairList:
        """Return the pairs by name, in their order."""
        return PairList(self.names, self.pairs)


@dataclass(frozen=True)
class Ranked:
    """The lists of one source, as E entries: the pair of an image and another, with its rank in the image's list."""

    source: Source
    pairs: LongArray
    """(E, 2) rows of images, in either order. A pair may occur twice: once in the list of each of its images."""
    rank: FloatArray
    """(E,) float32, from 0."""

    @classmethod
    def from_table(cls, source: Source, images: LongArray, others: LongArray) -> Self:
        """Make entries of a table of K others, best first, for Q images: (Q,) and (Q, K) rows; -1 is no image."""
        found = others >= 0
        pairs = np.stack(np.broadcast_arrays(images[:, None], others), axis=-1)[found]
        rank = np.broadcast_to(np.arange(others.shape[1], dtype=np.float32), others.shape)[found]
        return cls(source, pairs, rank)

    @classmethod
    def by_score(
        cls, source: Source, pairs: LongArray, score: NDArray[np.float64], images: LongArray | None = None
    ) -> Self:
        """Rank pairs (P, 2) in the lists of `images` (I,), or of all, by score (P,), largest first."""
        image, other = (np.concatenate([pairs[:, side], pairs[:, 1 - side]]) for side in (0, 1))
        score = np.tile(score, 2)
        if images is not None:
            listed = np.isin(image, images)
            image, other, score = image[listed], other[listed], score[listed]
        order = np.lexsort((other, -score, image))
        image = image[order]
        rank = np.arange(len(order)) - np.searchsorted(image, image)
        return cls(source, np.stack([image, other[order]], axis=1), rank.astype(np.float32))


def union(names: Sequence[str], lists: Sequence[Ranked]) -> Candidates:
    """Join lists of all sources. The scores are 0."""
    pairs = np.concatenate([np.zeros((0, 2), np.int64), *(entry.pairs for entry in lists)])
    keys = pairs.min(1) * len(names) + pairs.max(1)
    rank = np.concatenate([np.zeros(0, np.float32), *(entry.rank for entry in lists)])
    source = np.repeat([int(entry.source) for entry in lists], [len(entry.rank) for entry in lists]).astype(np.uint8)
    order = np.argsort(keys, kind="stable")
    unique, starts = np.unique(keys[order], return_index=True)
    if not len(unique):
        return Candidates(names, np.zeros((0, 2), np.int32), *(np.zeros(0, np.float32),) * 2, np.zeros(0, np.uint8))
    return Candidates(
        names,
        np.stack(np.divmod(unique, len(names)), axis=1).astype(np.int32),
        np.minimum.reduceat(rank[order], starts),
        np.zeros(len(unique), np.float32),
        np.bitwise_or.reduceat(source[order], starts),
    )
