"""Pairs file + features store -> matches store."""

import time
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from lgbatch.changes import drop_others, pairs_to_match
from lgbatch.config import Settings
from lgbatch.errors import InputError
from lgbatch.finished import Finished, relevant, signature, signatures
from lgbatch.interrupt import deferred
from lgbatch.ledger import Ledger
from lgbatch.matcher import Matcher
from lgbatch.models import model_path, stages_kind
from lgbatch.outcomes import Outcome, outcomes
from lgbatch.pairs import PairsFile, read_pairs
from lgbatch.provenance import ImageRecord, Provenance
from lgbatch.store import FeatureStore, MatchStore
from lgbatch.types import Failure, Pair
from lgbatch.workers import open_matchers

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
    skipped_pairs: int
    """Pairs that were not matched because an image of theirs had failed."""
    failures: tuple[Failure, ...]
    finished_already: bool = False
    """Nothing has changed since an earlier run, of which the other figures are."""

    def usable(self, images: Iterable[str]) -> list[str]:
        """Those of the images whose features could be used."""
        failed = {failure.name for failure in self.failures}
        return [name for name in images if name not in failed]


@dataclass
class _Work:
    """What came of the pairs so far."""

    written: int = 0
    matched_pairs: int = 0
    matches: int = 0
    skipped: int = 0
    """Pairs of images that failed."""


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

    Raises InputError (no pairs file, features of another extractor), ModelError, StoreError (no features, disk full,
    and what changes.pairs_to_match refuses), and LgbatchError where more fail than settings.max_errors allows.
    """
    ledger = Ledger(store_path.parent, retry=retry_failed, limit=settings.max_errors)
    made_from = {"features": signature(features_path), "settings": relevant("match", settings)}
    stages = signatures([model_path(models, settings.extractor, stages_kind(settings))])
    finished = Finished(store_path.parent, "match", pairs=signature(pairs_path), model=stages, **made_from)
    before = finished.result(Matched, failures=Failure)
    if before and ledger.settled(before.failures):
        return replace(before, new=0)
    listed, work = read_pairs(pairs_path), _Work()
    with FeatureStore(features_path) as features:
        for extractor in {entry["by"].get("extractor") for entry in features.made.values()} - {
            settings.extractor,
            None,
        }:
            raise InputError(f"{features_path} holds {extractor} features: match them with --extractor {extractor}")
        matchers = open_matchers(models, settings)
        with MatchStore(store_path, append=_provenance(matchers[0], settings)) as store:
            images = {name: features.record(name) for name in features.names()}
            usable, skipped, failures = _usable(listed, images, ledger.failed({"crawl", "extract"}))
            standing = pairs_to_match(store, usable, images, settings.on_change)
            failures += standing.failures
            for failure in failures:
                ledger.add(failure)
            ledger.check()
            tried = {name: ledger.known("match", name, made_from) for pair in standing.missing for name in pair}
            failed = {name: failure for name, failure in tried.items() if failure}
            todo = [pair for pair in standing.missing if failed.keys().isdisjoint(pair)]
            work.skipped = skipped + len(standing.missing) - len(todo)
            counts = {name: record.keypoints for name, record in images.items()}
            with deferred(), closing(outcomes(todo, counts, features.read, matchers)) as matched:
                bar = tqdm(matched, total=len(todo), desc="match", unit="pair", disable=None)
                for failure in _write(bar, store, images, work, again=settings.on_change == "recompute"):
                    if failure.name not in failed:
                        failed[failure.name] = failure
                        ledger.add(failure, made_from)
                    if ledger.full:
                        break
                store.commit()
            ledger.check()
            drop_others(store, settings.on_change)
    failures += failed.values()
    ledger.finish({"pairs", "match"}, failures)
    result = Matched(
        pairs=len(listed.pairs),
        new=work.written,
        matched_pairs=standing.matched_pairs + work.matched_pairs,
        matches=standing.matches + work.matches,
        duplicates=listed.duplicates,
        reversed=listed.reversed,
        self_pairs=listed.self_pairs,
        skipped_pairs=work.skipped,
        failures=tuple(failures),
    )
    finished.save(result, [store_path])
    return result


def _provenance(matcher: Matcher, settings: Settings) -> Provenance:
    return {
        "matcher": f"{settings.extractor} lightglue",
        "weights": matcher.stages.weights,
        "precision": matcher.stages.precision,
        "depth_confidence": settings.depth_confidence,
        "width_confidence": settings.width_confidence,
        "filter_threshold": settings.filter_threshold,
        "give_up": settings.give_up,
    }


def _usable(
    listed: PairsFile, images: Mapping[str, ImageRecord], failed: Container[str]
) -> tuple[list[Pair], int, list[Failure]]:
    """Pairs whose images have features, and whose names do not become another's in hloc's layout.

    Then how many others have an image that `failed`, and what is wrong with the rest and with the file.
    """
    spelled = Counter(name.replace("/", "-") for name in images)
    failures, usable, skipped = list(listed.failures), [], 0
    for pair in listed.pairs:
        unknown = [name for name in pair if name not in images]
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


def _write(
    outcomes: Iterator[Outcome], store: MatchStore, images: Mapping[str, ImageRecord], work: _Work, *, again: bool
) -> Iterator[Failure]:
    """Write the matches, in the place of what is there if it is made `again`; what failed is passed on."""
    committed = time.monotonic()
    for pair, outcome in outcomes:
        first, second = images[pair.a], images[pair.b]
        if again:
            store.remove(pair)
        if isinstance(outcome, Failure):
            work.skipped += 1
            yield outcome
        else:
            store.write(pair, outcome, first.keypoints, (first.version, second.version))
            work.written += 1
            work.matched_pairs += bool(len(outcome.indices))
            work.matches += len(outcome.indices)
        if time.monotonic() - committed > COMMIT_SECONDS:
            store.commit()
            committed = time.monotonic()
