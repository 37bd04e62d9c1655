"""What the choice of pairs and their matching will take, without doing it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lgbatch.config import Settings
from lgbatch.matching.engine import match_pairs, open_matchers
from lgbatch.pairing.evidence.find import find_candidates
from lgbatch.pairing.methods import in_rounds, make_pairs
from lgbatch.pipelines.pairs.choose import photos_to_pair
from lgbatch.pipelines.pairs.rounds import PAIRS_PER_IMAGE
from lgbatch.storage.features import FeatureStore
from lgbatch.types import PairList
from lgbatch.workspace.folder import Workspace
from lgbatch.workspace.forecast import BYTES_PER_PAIR, describe

_SAMPLE, _WARM_UP = 24, 4
"""Pairs that are matched for the measurement, and before it."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What the pairs of a set will take on this machine."""

    pairs: int
    rounds: bool
    """The pairs are chosen in rounds: their number is an estimate."""
    seconds_choice: float
    """Seconds that the choice took now, without matching."""
    seconds_per_pair: float
    """Measured on some of the pairs."""
    seconds: float
    """Seconds of matching."""
    bytes: int

    def format(self) -> str:
        """Format the estimate as one line."""
        rounds = "in rounds, about " if self.rounds else ""
        return f"{rounds}{describe(self.pairs, self.seconds)}, at {1000 * self.seconds_per_pair:.0f} ms a pair"


def estimate_pairs(
    workspace: Workspace, names: Sequence[str], settings: Settings, *, image_folder: Path | None, models: Path
) -> Estimate:
    """Choose the pairs, match some of them, and write nothing. Raises as choose_pairs does."""
    start, rounds = time.perf_counter(), in_rounds(settings, len(names))
    photos = photos_to_pair(workspace, names, settings, image_folder)
    if not workspace.vocabulary.exists():  # which later photos would be compared by
        photos = replace(photos, vocabulary=None)
    if rounds:
        candidates = find_candidates(photos, settings)
        pairs = candidates.best(1).as_pairs()
        count = min(len(candidates.pairs), PAIRS_PER_IMAGE * len(names))
    else:
        pairs = make_pairs(photos, settings)
        count = len(pairs)
    chosen = time.perf_counter()
    per_pair = seconds_per_pair(pairs, photos.features, settings, models)
    return Estimate(
        pairs=count,
        rounds=rounds,
        seconds_choice=round(chosen - start, 3),
        seconds_per_pair=round(per_pair, 5),
        seconds=round(per_pair * count, 1),
        bytes=count * BYTES_PER_PAIR,
    )


def seconds_per_pair(
    pairs: PairList, features_path: Path, settings: Settings, models: Path, count: int = _SAMPLE
) -> float:
    """Match `count` pairs, evenly spaced in the list, and return the seconds of each. Raises as `match`."""
    if not len(pairs):
        return 0.0
    rows = np.unique(np.linspace(0, len(pairs) - 1, count).astype(np.int64))
    sample = PairList(pairs.names, pairs.ids[rows])
    with FeatureStore(features_path) as features:
        counts = {name: features.record(name).keypoints for name in sample.images()}
        matchers = open_matchers(models, settings)
        for part in (sample[:_WARM_UP], sample):
            start = time.perf_counter()
            for _ in match_pairs(part, counts, features.read, matchers):
                pass
        return (time.perf_counter() - start) / len(sample)
