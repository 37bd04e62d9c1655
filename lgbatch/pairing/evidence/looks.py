"""Which images look alike, from the local features that are stored: a shortlist by VLAD, then votes of descriptors."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from lgbatch.pairing.evidence.lists import Ranked, Source
from lgbatch.pairing.evidence.vocabulary import read_descriptors, read_vocabulary
from lgbatch.pairing.evidence.votes import BestDescriptors, Track, untracked
from lgbatch.pairing.retrieval import most_similar, similarities_of_pairs, vlad
from lgbatch.storage.features import FeatureStore
from lgbatch.types import BoolArray, FloatArray, LongArray


@dataclass(frozen=True)
class Looks:
    """What is compared of N images."""

    vectors: NDArray[np.float16]
    """(N, V), VLAD vectors of norm 1; 0 for images without features."""
    best: BestDescriptors
    described: BoolArray
    """(N,), whether the image has features that fit the vocabulary."""

    @classmethod
    def read(
        cls,
        names: Sequence[str],
        features: FeatureStore,
        vocabulary: Path | None,
        threads: int,
        track: Track = untracked,
    ) -> Self:
        """Read the features of images. `vocabulary` is the file of the words, None if they are not stored.

        Raises InputError if that file cannot be written.
        """
        words = read_vocabulary(names, features, vocabulary)
        looks = cls(
            np.zeros((len(names), words.size), np.float16), BestDescriptors(len(names)), np.zeros(len(names), np.bool_)
        )

        def read_image(row: int) -> None:
            descriptors = read_descriptors(names[row], features)
            if descriptors is not None and descriptors.shape[1] == words.shape[1]:
                looks.vectors[row] = vlad(descriptors, words)
                looks.best.add(row, descriptors)
                looks.described[row] = True

        with ThreadPoolExecutor(threads) as pool:
            for _ in track(pool.map(read_image, range(len(names))), "pairs, reading", total=len(names), unit="photo"):
                pass
        return looks

    def shortlist(self, count: int, queries: LongArray | None = None) -> LongArray:
        """Return pairs (P, 2) of rows, ascending: `queries` (Q,), or all images, with the `count` most similar ones."""
        rows = np.flatnonzero(self.described)
        queries = rows if queries is None else queries[self.described[queries]]
        if len(rows) < 2 or not len(queries):
            return np.zeros((0, 2), np.int64)
        vectors = self.vectors if len(rows) == len(self.vectors) else self.vectors[rows]
        found = most_similar(vectors, min(count, len(rows) - 1), np.searchsorted(rows, queries))
        pairs = np.stack(np.broadcast_arrays(queries[:, None], rows[found]), axis=-1).reshape(-1, 2)
        keys = np.unique(pairs.min(1) * len(self.described) + pairs.max(1))
        return np.stack(np.divmod(keys, len(self.described)), axis=1)

    def rank(self, pairs: LongArray, votes: FloatArray, queries: LongArray | None = None) -> Ranked:
        """Rank pairs (P, 2) by votes (P,), equal ones by similarity, for `queries` (Q,) or for all images."""
        similarity = similarities_of_pairs(self.vectors, pairs[:, 0], pairs[:, 1])
        return Ranked.by_score(Source.LOOKS, pairs, votes + similarity / 4, queries)
