"""Pairs file + features store -> matches store: schedule, read ahead, match, write."""

import threading
import time
import traceback
from collections import Counter, OrderedDict
from collections.abc import Callable, Container, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from lgbatch.ahead import ahead
from lgbatch.config import Settings
from lgbatch.errors import ItemError
from lgbatch.finished import Finished, relevant, signature, signatures
from lgbatch.interrupt import deferred, until_stopped
from lgbatch.ledger import Ledger
from lgbatch.matcher import Matcher, Stem, no_matches
from lgbatch.models import model_path, stages_kind
from lgbatch.pairs import PairsFile, read_pairs
from lgbatch.runtime import available_cores
from lgbatch.schedule import Batch, plan
from lgbatch.store import FeatureStore, MatchStore
from lgbatch.types import Failure, Features, Matches, Pair

STEM_BYTES = 512 << 20
"""Memory for what is kept of images between their pairs."""
BYTES_PER_POINT = 4 * (256 + 64)
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
    skipped_pairs: int
    """Pairs that were not matched because an image of theirs had failed."""
    failures: tuple[Failure, ...]
    finished_already: bool = False
    """Nothing has changed since an earlier run, of which the other figures are."""


def match(
    pairs_path: Path,
    features_path: Path,
    store_path: Path,
    *,
    models: Path,
    settings: Settings,
    retry_failed: bool = False,
) -> Matched:
    """Match every pair of the file that the store lacks. A pair that names an unknown image is a Failure.

    An image whose features cannot be read is one Failure, and its pairs are skipped; so are those of photos that
    extraction failed on. What failed before is tried again when features.h5 or the settings have changed, or with
    `retry_failed`.

    Raises InputError (no pairs file), ModelError, StoreError (no features, made with other settings, disk full), and
    LgbatchError where more fail than settings.max_errors allows.
    """
    ledger = Ledger(store_path.parent, retry=retry_failed, limit=settings.max_errors)
    made_from = {"features": signature(features_path), "settings": relevant("match", settings)}
    stages = signatures([model_path(models, settings.extractor, stages_kind(settings))])
    finished = Finished(store_path.parent, "match", pairs=signature(pairs_path), model=stages, **made_from)
    before = finished.result(Matched, failures=Failure)
    if before and ledger.settled(before.failures):
        return replace(before, new=0)
    listed = read_pairs(pairs_path)
    with FeatureStore(features_path) as features:
        matcher = Matcher(models, settings)
        provenance = {
            "matcher": f"{settings.extractor} lightglue",
            "weights": matcher.stages.weights,
            "precision": matcher.stages.precision,
            "depth_confidence": settings.depth_confidence,
            "width_confidence": settings.width_confidence,
            "filter_threshold": settings.filter_threshold,
            "features": features.provenance,
        }
        with MatchStore(store_path, append=provenance) as store:
            counts = {name: features.count(name) for name in features.names()}
            usable, skipped, failures = _usable(listed, counts, ledger.failed({"crawl", "extract"}))
            for failure in failures:
                ledger.add(failure)
            ledger.check()
            missing = [pair for pair in usable if pair not in store]
            tried = {name: ledger.known("match", name, made_from) for name in {n for pair in missing for n in pair}}
            unread = {name: failure for name, failure in tried.items() if failure}
            todo = [pair for pair in missing if unread.keys().isdisjoint(pair)]
            workers = settings.threads or available_cores()
            with deferred(), closing(outcomes(todo, counts, features.read, matcher, workers)) as matched:
                for failure in _write(matched, store, counts, len(todo)):
                    if failure.name not in unread:
                        unread[failure.name] = failure
                        ledger.add(failure, made_from)
                    if ledger.full:
                        break
                store.commit()
            ledger.check()
            totals = [len(store.read(pair).indices) for pair in usable if pair in store]
    failures += unread.values()
    ledger.finish({"pairs", "match"}, failures)
    left_out = sum(not unread.keys().isdisjoint(pair) for pair in missing)
    result = Matched(
        pairs=len(listed.pairs),
        new=len(missing) - left_out,
        matched_pairs=int(np.count_nonzero(totals)),
        matches=sum(totals),
        duplicates=listed.duplicates,
        reversed=listed.reversed,
        self_pairs=listed.self_pairs,
        skipped_pairs=skipped + left_out,
        failures=tuple(failures),
    )
    finished.save(result, [store_path])
    return result


def _usable(
    listed: PairsFile, counts: Mapping[str, int], failed: Container[str]
) -> tuple[list[Pair], int, list[Failure]]:
    """Pairs whose images have features, and whose names do not become another's in hloc's layout.

    Then how many others have an image that `failed`, and what is wrong with the rest and with the file.
    """
    spelled = Counter(name.replace("/", "-") for name in counts)
    failures, usable, skipped = list(listed.failures), [], 0
    for pair in listed.pairs:
        unknown = [name for name in pair if name not in counts]
        twin = [name for name in pair if spelled[name.replace("/", "-")] > 1]
        if any(name in failed for name in unknown):
            skipped += 1
        elif unknown:
            failures.append(Failure("match", " ".join(pair), f"no features of {' and '.join(unknown)}"))
        elif twin:
            reason = f"{twin[0]} and another image have one name in hloc's layout ('/' becomes '-'): rename one"
            failures.append(Failure("match", " ".join(pair), reason))
        else:
            usable.append(pair)
    return usable, skipped, failures


def _write(outcomes: Iterator[Outcome], store: MatchStore, counts: dict[str, int], total: int) -> Iterator[Failure]:
    """Write the matches; what could not be matched is passed on."""
    committed = time.monotonic()
    for pair, outcome in tqdm(outcomes, total=total, desc="match", unit="pair", disable=None):
        if isinstance(outcome, Failure):
            yield outcome
        else:
            store.write(pair, outcome, counts[pair.a])
        if time.monotonic() - committed > COMMIT_SECONDS:
            store.commit()
            committed = time.monotonic()


def outcomes(
    pairs: Sequence[Pair], counts: Mapping[str, int], read: Callable[[str], Features], matcher: Matcher, workers: int
) -> Generator[Outcome, None, None]:
    """Match the pairs, in an order that keeps few images in memory, on `workers` threads ahead of the caller.

    `counts` has the keypoints of every image, and `read` gives its features; a pair of an image that it raises
    ItemError for comes with the Failure of that image.
    """
    full = [pair for pair in pairs if counts[pair.a] and counts[pair.b]]
    yield from ((pair, no_matches()) for pair in pairs if not (counts[pair.a] and counts[pair.b]))
    largest = max((counts[name] for pair in full for name in pair), default=1)
    capacity = max(2 * workers + 2, STEM_BYTES // (largest * BYTES_PER_POINT))
    points = sum(counts[pair.a] + counts[pair.b] for pair in full)
    tokens = min(matcher.stages.tokens, points // (2 * workers) + 1)  # few pairs: some for every worker
    stems = StemCache(lambda name: matcher.stem(read(name)), capacity)

    def stem_or_failure(name: str) -> Stem | Failure:
        try:
            return stems.get(name)
        except ItemError as error:
            return Failure("match", name, str(error), traceback.format_exc())

    def work(batch: Batch) -> list[Outcome]:
        failed: list[Outcome] = []
        kept, ready = [], []
        for pair in (full[i] for i in batch):
            a, b = stem_or_failure(pair.a), stem_or_failure(pair.b)
            if isinstance(a, Failure):
                failed.append((pair, a))
            elif isinstance(b, Failure):
                failed.append((pair, b))
            else:
                ready.append((a, b))
                kept.append(pair)
        return failed + list(zip(kept, matcher.match(ready, tokens), strict=True))

    names = sorted({name for pair in full for name in pair})
    ids = {name: i for i, name in enumerate(names)}
    batches = plan(
        [counts[name] for name in names], [(ids[a], ids[b]) for a, b in full], images=capacity, tokens=tokens
    )
    for done in ahead(work, until_stopped(batches), threads=workers, depth=2 * workers):
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
