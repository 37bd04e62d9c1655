"""Pairs file + features store -> matches store: schedule, read ahead, match, write."""

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from lgbatch.ahead import ahead
from lgbatch.config import Settings
from lgbatch.errors import InputError, ItemError
from lgbatch.matcher import Matcher, Stem, no_matches
from lgbatch.models import available_cores
from lgbatch.pairs import PairsFile, read_pairs
from lgbatch.schedule import Batch, plan
from lgbatch.store import FeatureStore, MatchStore
from lgbatch.types import Failure, Features, Matches, Pair

STEM_BYTES = 512 << 20
"""Memory for what is kept of images between their pairs."""
BYTES_PER_POINT = 4 * (256 + 64)
TOKENS = {"CPUExecutionProvider": 4096, "CUDAExecutionProvider": 131072}
"""Padded keypoints, of both sides together, in one batch."""
COMMIT_SECONDS = 2.0
"""Most work that a killed run loses."""

Outcome = tuple[Pair, Matches | Failure]


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

    Raises InputError (no pairs file, features of another extractor), ModelError, StoreError (no features, made with
    other settings, disk full).
    """
    listed = read_pairs(pairs_path)
    with FeatureStore(features_path) as features:
        made_by = (features.provenance or {}).get("extractor", settings.extractor)
        if made_by != settings.extractor:
            raise InputError(f"{features_path} holds {made_by} features: match them with --extractor {made_by}")
        matcher = Matcher(models, settings)
        provenance = {
            "matcher": f"{settings.extractor} lightglue",
            "weights": matcher.weights,
            "depth_confidence": settings.depth_confidence,
            "width_confidence": settings.width_confidence,
            "filter_threshold": settings.filter_threshold,
            "features": features.provenance,
        }
        with MatchStore(store_path, append=provenance) as store:
            counts = {name: features.count(name) for name in features.names()}
            usable, failures = _usable(listed, counts)
            missing = [pair for pair in usable if pair not in store]
            workers = settings.threads or available_cores()
            matched = outcomes(missing, counts, features.read, matcher, workers)
            unread = _write(matched, store, counts, len(missing))
            totals = [len(store.read(pair).indices) for pair in usable if pair in store]
    return Matched(
        pairs=len(listed.pairs),
        new=len(missing) - len(unread),
        matched_pairs=int(np.count_nonzero(totals)),
        matches=sum(totals),
        duplicates=listed.duplicates,
        reversed=listed.reversed,
        self_pairs=listed.self_pairs,
        failures=(*listed.failures, *failures, *unread),
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


def _write(outcomes: Iterator[Outcome], store: MatchStore, counts: dict[str, int], total: int) -> list[Failure]:
    failures = []
    committed = time.monotonic()
    for pair, outcome in tqdm(outcomes, total=total, desc="match", unit="pair", disable=None):
        if isinstance(outcome, Failure):
            failures.append(outcome)
        else:
            store.write(pair, outcome, counts[pair.a])
        if time.monotonic() - committed > COMMIT_SECONDS:
            store.commit()
            committed = time.monotonic()
    return failures


def outcomes(
    pairs: Sequence[Pair], counts: Mapping[str, int], read: Callable[[str], Features], matcher: Matcher, workers: int
) -> Iterator[Outcome]:
    """Match the pairs, in an order that keeps few images in memory, on `workers` threads ahead of the caller.

    `counts` has the keypoints of every image, and `read` gives its features; a pair of what it raises ItemError for
    is a Failure.
    """
    full = [pair for pair in pairs if counts[pair.a] and counts[pair.b]]
    yield from ((pair, no_matches()) for pair in pairs if not (counts[pair.a] and counts[pair.b]))
    largest = max((counts[name] for pair in full for name in pair), default=1)
    capacity = max(2 * workers + 2, STEM_BYTES // (largest * BYTES_PER_POINT))
    points = sum(counts[pair.a] + counts[pair.b] for pair in full)
    tokens = min(TOKENS[matcher.provider], points // (2 * workers) + 1)  # few pairs: some for every worker
    stems = StemCache(lambda name: matcher.stem(read(name)), capacity)

    def work(batch: Batch) -> list[Outcome]:
        failed: list[Outcome] = []
        kept, ready = [], []
        for pair in (full[i] for i in batch):
            try:
                ready.append((stems.get(pair.a), stems.get(pair.b)))
                kept.append(pair)
            except ItemError as error:
                failed.append((pair, Failure("match", " ".join(pair), str(error))))
        return failed + list(zip(kept, matcher.match(ready, tokens), strict=True))

    names = sorted({name for pair in full for name in pair})
    ids = {name: i for i, name in enumerate(names)}
    batches = plan(
        [counts[name] for name in names], [(ids[a], ids[b]) for a, b in full], images=capacity, tokens=tokens
    )
    for done in ahead(work, batches, threads=workers, depth=2 * workers):
        yield from done


class StemCache:
    """What images need for all of their pairs, computed once while it is in memory, by whichever thread asks first."""

    def __init__(self, make: Callable[[str], Stem], capacity: int) -> None:
        """Keep the `capacity` images that were used last."""
        self._make, self._capacity = make, capacity
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Future[Stem]] = OrderedDict()
        self.made = 0

    def get(self, name: str) -> Stem:
        """Return an image's stem; raises what making it raised."""
        with self._lock:
            future = self._kept.get(name)
            mine = future is None
            if future is None:
                future = self._kept[name] = Future()
                self.made += 1
                while len(self._kept) > self._capacity:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(name)
        if mine:
            try:
                future.set_result(self._make(name))
            except BaseException as error:
                future.set_exception(error)
        return future.result()
