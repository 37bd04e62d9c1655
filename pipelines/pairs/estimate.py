"""What the choice of pairs and their matching will take, without doing it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lgbatch.config import Settings
from lgbatch.matching.engine import match_pairs, open_matchers
from lgbatch.matching.lightglue import Matcher
from lgbatch.pairing.evidence.find import Photos, find_candidates
from lgbatch.pairing.methods import in_rounds, make_pairs
from lgbatch.pairing.pairs_file import read_pairs
from lgbatch.pipelines.pairs.choose import are_chosen, photos_to_pair
from lgbatch.pipelines.pairs.rounds import expected_pairs
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import MatchStore
from lgbatch.storage.provenance import Provenance
from lgbatch.types import BoolArray, PairList, counted
from lgbatch.workspace.folder import Workspace
from lgbatch.workspace.forecast import BYTES_PER_PAIR, describe
from lgbatch.workspace.staleness import are_usable

_SAMPLE, _WARM_UP = 24, 4
"""Pairs that are matched for the measurement, and before it."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What the pairs of a set will take on this machine."""

    pairs: int
    matched: int
    """Pairs whose matches are stored already. What follows is of the others."""
    rounds: bool
    """The pairs are still to be chosen in rounds: their number is an estimate."""
    seconds_choice: float
    """Seconds that the choice took now, without matching."""
    seconds_per_pair: float
    """Measured on some of the pairs; 0 if none is left."""
    seconds: float
    """Seconds of matching."""
    bytes: int

    def format(self) -> str:
        """Format the estimate as one line."""
        left, pairs = self.pairs - self.matched, counted(self.pairs, "pair")
        rounds = "in rounds, about " if self.rounds else ""
        forecast = f"{describe(left, self.seconds)}, at {1000 * self.seconds_per_pair:.0f} ms a pair"
        if not self.matched:
            return f"{rounds}{forecast}"
        if not left:
            return f"{rounds}{pairs}, all matched already: {'little' if self.rounds else 'nothing'} is left to match"
        return f"{rounds}{pairs}, {self.matched} of them matched already; the other {forecast}"


class _Work(NamedTuple):
    """The pairs of a set, as far as they can be told."""

    pairs: int
    matched: int
    examples: PairList
    """Pairs that are left to match, or some like them."""


def estimate_pairs(
    workspace: Workspace, names: Sequence[str], settings: Settings, *, image_folder: Path | None, models: Path
) -> Estimate:
    """Choose the pairs, match some that are left to match, and write nothing. Raises as choose_pairs does."""
    start, by_rounds = time.perf_counter(), in_rounds(settings, len(names))
    rounds = by_rounds and not are_chosen(workspace, names, settings)
    matchers = open_matchers(models, settings)
    photos = photos_to_pair(workspace, names, settings, image_folder)
    if not workspace.vocabulary.exists():  # which later photos would be compared by
        photos = replace(photos, vocabulary=None)
    if rounds:
        work = _work_of_rounds(workspace, photos, settings, matchers[0])
    else:
        pairs = read_pairs(workspace.pairs).pairs if by_rounds else make_pairs(photos, settings)
        stored = _stored(workspace, pairs, settings, matchers[0])
        work = _Work(len(pairs), int(stored.sum()), pairs.where(~stored))
    chosen = time.perf_counter()
    left = work.pairs - work.matched
    per_pair = seconds_per_pair(work.examples, photos.features, matchers) if left else 0.0
    return Estimate(
        pairs=work.pairs,
        matched=work.matched,
        rounds=rounds,
        seconds_choice=round(chosen - start, 3),
        seconds_per_pair=round(per_pair, 5),
        seconds=round(per_pair * left, 1),
        bytes=left * BYTES_PER_PAIR,
    )


def seconds_per_pair(pairs: PairList, features_path: Path, matchers: Sequence[Matcher], count: int = _SAMPLE) -> float:
    """Match `count` pairs, evenly spaced in the list, and return the seconds of each. Raises as `match`."""
    if not len(pairs):
        return 0.0
    rows = np.unique(np.linspace(0, len(pairs) - 1, count).astype(np.int64))
    sample = PairList(pairs.names, pairs.ids[rows])
    with FeatureStore(features_path) as features:
        counts = {name: features.record(name).keypoints for name in sample.images()}
        for part in (sample[:_WARM_UP], sample):
            start = time.perf_counter()
            for _ in match_pairs(part, counts, features.read, matchers):
                pass
        return (time.perf_counter() - start) / len(sample)


def _work_of_rounds(workspace: Workspace, photos: Photos, settings: Settings, matcher: Matcher) -> _Work:
    """About what rounds that are not finished will match, if they choose the stored pairs among others."""
    candidates = find_candidates(photos, settings)
    count, stored = expected_pairs(candidates), 0
    if workspace.matches.exists():
        with MatchStore(workspace.matches) as store:
            pairs = PairList.of(store.pairs(photos.names))
        stored = int(_stored(workspace, pairs, settings, matcher).sum())
    return _Work(count, min(count, stored), candidates.best(1).as_pairs())


def _stored(workspace: Workspace, pairs: PairList, settings: Settings, matcher: Matcher) -> BoolArray:
    """Which pairs have matches that a run with these settings uses, (P,)."""
    if not workspace.matches.exists():
        return np.zeros(len(pairs), np.bool_)
    with FeatureStore(workspace.features) as features:
        versions = {name: features.record(name).version for name in pairs.images()}
    with MatchStore(workspace.matches) as store:
        made = {} if settings.on_change == "keep" else store.provenances
        outdated = {key for key, entry in made.items() if not _is_current(entry["by"], settings, matcher)}
        return are_usable(store, pairs, versions, outdated)


def _is_current(made_by: Provenance, settings: Settings, matcher: Matcher) -> bool:
    """Whether matches were made as those of this matcher, except for its precision if that is chosen by the machine."""
    now = settings.recorded("match") | {"weights": matcher.stages.weights, "precision": matcher.stages.precision}
    if settings.precision == "auto":
        del now["precision"]
    return all(made_by.get(name, value) == value for name, value in now.items())
