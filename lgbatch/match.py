"""Pairs file + features store -> matches store: schedule, read ahead, match, write."""

import time
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from lgbatch.ahead import ahead
from lgbatch.config import Settings
from lgbatch.errors import ItemError
from lgbatch.matcher import Matcher, PaddedSide, pad
from lgbatch.pairs import PairsFile, read_pairs
from lgbatch.schedule import Batch, plan
from lgbatch.store import FeatureStore, MatchStore
from lgbatch.types import Failure, Features, Matches, Pair

FEATURE_BYTES = 512 << 20
"""Memory for cached features."""
TOKENS = {"CPUExecutionProvider": 4096, "CUDAExecutionProvider": 131072}
"""Padded keypoints, of both sides together, in one batch."""
COMMIT_SECONDS = 2.0
"""Most work that a killed run loses."""


@dataclass(frozen=True)
class Matched:
    """What the matches store holds of a pairs file."""

    pairs: int
    """Different pairs in the file."""
    new: int
    """Pairs matched now; the others were in the store."""
    matched_pairs: int
    """Pairs with at least one match."""
    matches: int
    duplicates: int
    reversed: int
    self_pairs: int
    """Lines of the pairs file that were dropped: pairs named twice, named in both orders, of an image with itself."""
    failures: tuple[Failure, ...]


def match(pairs_path: Path, features_path: Path, store_path: Path, *, models: Path, settings: Settings) -> Matched:
    """Match every pair of the file that the store lacks. A pair that names an unknown image is a Failure.

    Raises InputError (no pairs file), ModelError, StoreError (no features, made with other settings, disk full).
    """
    listed = read_pairs(pairs_path)
    with FeatureStore(features_path) as features:
        matcher = Matcher(
            models,
            settings.extractor,
            threshold=settings.filter_threshold,
            device=settings.device,
            threads=settings.threads,
        )
        provenance = {
            "matcher": f"{settings.extractor} lightglue",
            "weights": matcher.model.weights,
            "filter_threshold": settings.filter_threshold,
            "features": features.provenance,
        }
        with MatchStore(store_path, append=provenance) as store:
            counts = {name: features.count(name) for name in features.names()}
            usable, failures = _usable(listed, counts)
            missing = [pair for pair in usable if pair not in store]
            run = _Run(features, store, matcher, counts)
            failures += run.match_all(missing)
            totals = [len(store.read(pair).indices) for pair in usable if pair in store]
    return Matched(
        pairs=len(listed.pairs),
        new=run.written,
        matched_pairs=int(np.count_nonzero(totals)),
        matches=sum(totals),
        duplicates=listed.duplicates,
        reversed=listed.reversed,
        self_pairs=listed.self_pairs,
        failures=(*listed.failures, *failures),
    )


def _usable(listed: PairsFile, counts: dict[str, int]) -> tuple[list[Pair], list[Failure]]:
    """Pairs whose images have features, and whose names do not become another's in hloc's layout."""
    spelled = Counter(name.replace("/", "-") for name in counts)
    failures, usable = [], []
    for pair in listed.pairs:
        unknown = [name for name in pair if name not in counts]
        twin = [name for name in pair if spelled[name.replace("/", "-")] > 1]
        if unknown:
            failures.append(Failure("match", " ".join(pair), f"no features of {' and '.join(unknown)}"))
        elif twin:
            reason = f"{twin[0]} and another image have one name in hloc's layout ('/' becomes '-'): rename one"
            failures.append(Failure("match", " ".join(pair), reason))
        else:
            usable.append(pair)
    return usable, failures


class _Run:
    """The loop over the batches of one run."""

    def __init__(self, features: FeatureStore, store: MatchStore, matcher: Matcher, counts: dict[str, int]) -> None:
        self._features, self._store, self._matcher, self._counts = features, store, matcher, counts
        self._cache: OrderedDict[str, Features] = OrderedDict()
        largest = max(counts.values(), default=0)
        self._capacity = max(2, FEATURE_BYTES // max(1, largest * 4 * (128 + 3)))
        self._committed = time.monotonic()
        self.written = 0

    def match_all(self, pairs: Sequence[Pair]) -> list[Failure]:
        """Match and store the pairs; the ones whose features cannot be read are returned."""
        failures: list[Failure] = []
        full = []
        with tqdm(total=len(pairs), desc="match", unit="pair", disable=None) as bar:
            for pair in pairs:
                if self._counts[pair.a] and self._counts[pair.b]:
                    full.append(pair)
                else:  # nothing to match, and nothing to compute
                    self._write(pair, Matches(np.zeros((0, 2), np.int32), np.zeros(0, np.float32)))
                    bar.update()
            for loaded in self._loaded(full):
                if isinstance(loaded, Failure):
                    failures.append(loaded)
                    bar.update()
                    continue
                batch, first, second = loaded
                for pair, matches in zip(batch, self._matcher.match(first, second), strict=True):
                    self._write(pair, matches)
                bar.update(len(batch))
        return failures

    def _loaded(self, pairs: Sequence[Pair]) -> Iterator[tuple[list[Pair], PaddedSide, PaddedSide] | Failure]:
        names = sorted({name for pair in pairs for name in pair})
        ids = {name: i for i, name in enumerate(names)}
        batches = plan(
            [self._counts[name] for name in names],
            [(ids[a], ids[b]) for a, b in pairs],
            images=self._capacity,
            tokens=TOKENS[self._matcher.model.provider],
        )

        def load(batch: Batch) -> tuple[list[Failure], list[Pair], PaddedSide | None, PaddedSide | None]:
            """One thread calls this, so that the cache needs no lock."""
            failed, kept, sides = [], [], []
            for position in batch.pairs:
                try:
                    sides.append([self._read(name) for name in pairs[position]])
                    kept.append(pairs[position])
                except ItemError as error:
                    failed.append(Failure("match", " ".join(pairs[position]), str(error)))
            if not kept:
                return failed, kept, None, None
            first, second = (pad([side[i] for side in sides], batch.lengths[i]) for i in (0, 1))
            return failed, kept, first, second

        for failed, kept, first, second in ahead(load, batches, threads=1, depth=3):
            yield from failed
            if first is not None and second is not None:
                yield kept, first, second

    def _read(self, name: str) -> Features:
        if name not in self._cache:
            while len(self._cache) >= self._capacity:
                self._cache.popitem(last=False)
            self._cache[name] = self._features.read(name)
        self._cache.move_to_end(name)
        return self._cache[name]

    def _write(self, pair: Pair, matches: Matches) -> None:
        self._store.write(pair, matches, self._counts[pair.a])
        self.written += 1
        if time.monotonic() - self._committed > COMMIT_SECONDS:
            self._store.commit()
            self._committed = time.monotonic()
