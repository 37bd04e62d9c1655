"""Candidate pairs of a set of images from all that is known: their looks, the order of their names, their positions."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from lgbatch.config import Settings
from lgbatch.errors import InputError
from lgbatch.pairing.candidates import RigPlace
from lgbatch.pairing.evidence.global_descriptors import most_similar_by_file
from lgbatch.pairing.evidence.lists import Candidates, Ranked, Source, union
from lgbatch.pairing.evidence.looks import Looks
from lgbatch.pairing.evidence.order import order_of_names
from lgbatch.pairing.evidence.positions import Positions, exif_positions, file_positions, near
from lgbatch.pairing.evidence.votes import Track, untracked
from lgbatch.storage.features import FeatureStore
from lgbatch.types import LongArray

SHORTLIST = 50
"""The most similar images of each that descriptors vote on, at least."""


@dataclass(frozen=True)
class Photos:
    """What is known of the photos to pair."""

    names: Sequence[str]
    features: Path
    """features.h5, which has the features of the photos."""
    folder: Path | None = None
    """Folder of the photos; None: the one that features.h5 records."""
    vocabulary: Path | None = None
    """File of the visual words; None if they are not stored."""
    rig: Mapping[str, RigPlace] = field(default_factory=dict)
    """Places of the photos that belong to a rig, by name."""
    threads: int = 1
    track: Track = untracked
    """Shows the progress."""

    def positions(self, settings: Settings) -> Positions:
        """Return the positions (N, C) by the file of the settings or by EXIF, in metres; NaN where there is none.

        Raises InputError as file_positions does.
        """
        if settings.positions:
            return file_positions(Path(settings.positions), self.names)
        with FeatureStore(self.features) as features:
            folder = self.folder or features.image_folder
        if folder is None or not folder.is_dir():
            return np.full((len(self.names), 2), np.nan)
        return exif_positions([folder / name for name in self.names])

    def looks(self) -> Looks:
        """Read the features. Raises InputError if the vocabulary cannot be written."""
        with FeatureStore(self.features) as features:
            return Looks.read(self.names, features, self.vocabulary, self.threads, self.track)


def find_candidates(photos: Photos, settings: Settings) -> Candidates:
    """Return the pairs to try, as `--pairing auto` does for more than a few photos.

    Descriptors vote on all pairs that any source proposes; the votes rank the pairs of a photo anew. Deterministic.
    Time, memory and pairs are proportional to the number of photos, but for the product of their VLAD vectors.

    Raises InputError if a file of the settings cannot be read, or the vocabulary cannot be written.
    """
    looks = photos.looks()
    lists = [
        order_of_names(photos.names, settings.neighbours, photos.rig),
        near(photos.positions(settings), settings.neighbours, settings.max_distance),
    ]
    similar = looks.shortlist(max(SHORTLIST, settings.neighbours))
    if settings.global_descriptors:
        lists.append(most_similar_by_file(Path(settings.global_descriptors), photos.names, settings.neighbours))
        similar = similar[:0]
    proposed = union(photos.names, [Ranked(Source.LOOKS, similar, np.zeros(len(similar), np.float32)), *lists])
    pairs, votes = proposed.pairs.astype(np.int64), looks.best.count_votes(proposed.pairs, photos.threads, photos.track)
    ranked = union(photos.names, [looks.rank(pairs, votes), *lists])
    return replace(ranked, score=votes, sources=proposed.sources)


def alike(photos: Photos, settings: Settings, queries: LongArray | None = None) -> Ranked:
    """Rank the photos that look like each, or like the rows `queries` (Q,): by global descriptors if a file has them.

    Raises InputError as find_candidates does.
    """
    if settings.global_descriptors:
        path = Path(settings.global_descriptors)
        return most_similar_by_file(path, photos.names, settings.neighbours, queries)
    looks = photos.looks()
    pairs = looks.shortlist(max(SHORTLIST, settings.neighbours), queries)
    return looks.rank(pairs, looks.best.count_votes(pairs, photos.threads, photos.track), queries)


def close(photos: Photos, settings: Settings) -> Ranked:
    """Rank the photos that were taken near each. Raises InputError if no photo has a position, or as file_positions."""
    positions = photos.positions(settings)
    located = int((~np.isnan(positions).any(1)).sum())
    if not located:
        raise InputError("pairing spatial: no photo has a GPS position in its EXIF; give a file with --positions")
    if located < len(positions):
        without = f"{len(positions) - located} of {len(positions)} photos without a position"
        print(f"lgbatch: pairing spatial finds no pairs for {without}", file=sys.stderr)
    return near(positions, settings.neighbours, settings.max_distance)
