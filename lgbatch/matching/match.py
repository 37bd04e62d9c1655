"""Pairs file + features store -> matches store."""

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Self

from lgbatch.config import Settings
from lgbatch.errors import InputError
from lgbatch.matching.engine import Outcome, match_pairs, open_matchers
from lgbatch.matching.lightglue import Matcher
from lgbatch.pairing.pairs_file import PairsFile, read_pairs
from lgbatch.runtime.precision import stages_kind
from lgbatch.runtime.registry import model_path
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import MatchStore
from lgbatch.storage.provenance import ImageRecord, Provenance
from lgbatch.types import Failure, Pair
from lgbatch.workspace.stage import Failures, StageResult, StageRun, run_stage, write_items
from lgbatch.workspace.stage_cache import signature, signatures
from lgbatch.workspace.staleness import plan_matching


@dataclass(frozen=True, kw_only=True)
class Matched(StageResult):
    """What the matches store holds of a pairs file."""

    pairs: int
    """Different pairs in the file."""
    new: int
    """Pairs matched in this run. The store held the others."""
    matched_pairs: int
    """Pairs with at least one match."""
    matches: int
    duplicates: int
    reversed: int
    self_pairs: int
    """Lines of the pairs file that were dropped: a pair named twice, named in both orders, an image with itself."""
    skipped_pairs: int
    """Pairs that were not matched because one of their images failed."""

    def as_repeated(self) -> Self:
        """No pair is new in a run that skips the stage."""
        return replace(super().as_repeated(), new=0)

    def usable(self, images: Iterable[str]) -> list[str]:
        """The images whose features could be used."""
        failed = {failure.name for failure in self.failures}
        return [name for name in images if name not in failed]


@dataclass
class _Counts:
    """Pairs and matches so far."""

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
    """Match every pair of the file that the store lacks. A pair that names an unknown image becomes a Failure.

    An image whose features cannot be read is one Failure, and its pairs are skipped, as are the pairs of photos that
    failed in extraction. A failure is retried when features.h5 or the settings change, or with `retry_failed`.

    Raises InputError (no pairs file, features of another extractor), ModelError, StoreError (no features, disk full,
    or refused by staleness.plan_matching), and LgbatchError if more fail than settings.max_errors allows.
    """
    inputs = {"features": signature(features_path)}
    stage = StageRun(
        name="match",
        folder=store_path.parent,
        settings=settings,
        inputs=inputs
        | {
            "pairs": signature(pairs_path),
            "model": signatures([model_path(models, settings.extractor, stages_kind(settings))]),
        },
        outputs=lambda: [store_path],
        result=Matched,
        reports=frozenset({"pairs", "match"}),
    )
    item_inputs = inputs | {"settings": settings.affecting("match")}

    def match_missing(failures: Failures) -> Matched:
        listed = read_pairs(pairs_path)
        with FeatureStore(features_path) as features:
            _check_extractor(features, settings)
            matchers = open_matchers(models, settings)
            with MatchStore(store_path, append=_provenance(matchers[0], settings)) as store:
                return _match_missing(listed, features, store, matchers, settings, failures, item_inputs)

    return run_stage(stage, match_missing, retry_failed=retry_failed)


def _match_missing(
    listed: PairsFile,
    features: FeatureStore,
    store: MatchStore,
    matchers: Sequence[Matcher],
    settings: Settings,
    failures: Failures,
    inputs: Mapping[str, Any],
) -> Matched:
    images = {name: features.record(name) for name in features.names()}
    usable, skipped, unusable = _usable(listed, images, failures.of_stages("crawl", "extract"))
    plan = plan_matching(store, usable, images, settings.on_change)
    for failure in (*unusable, *plan.failures):
        failures.add(failure)
    failures.check()
    failed = {name for name in dict.fromkeys(chain(*plan.missing)) if failures.known("match", name, inputs)}
    todo = [pair for pair in plan.missing if failed.isdisjoint(pair)]
    counts = _Counts(0, plan.matched_pairs, plan.matches, skipped + len(plan.missing) - len(todo))

    def write(item: Outcome) -> None:
        pair, outcome = item
        if settings.on_change == "recompute":
            store.remove(pair)
        if isinstance(outcome, Failure):
            counts.skipped += 1
            failures.add(outcome, inputs)
        else:
            first, second = images[pair.a], images[pair.b]
            store.write(pair, outcome, first.keypoints, (first.version, second.version))
            counts.written += 1
            counts.matched_pairs += bool(len(outcome.indices))
            counts.matches += len(outcome.indices)

    keypoints = {name: record.keypoints for name, record in images.items()}
    outcomes = match_pairs(todo, keypoints, features.read, matchers)
    write_items(outcomes, write, store, failures, settings, total=len(todo), stage="match", unit="pair")
    return Matched(
        pairs=len(listed.pairs),
        new=counts.written,
        matched_pairs=counts.matched_pairs,
        matches=counts.matches,
        duplicates=listed.duplicates,
        reversed=listed.reversed,
        self_pairs=listed.self_pairs,
        skipped_pairs=counts.skipped,
        failures=failures.as_tuple(),
    )


def _check_extractor(features: FeatureStore, settings: Settings) -> None:
    """Raise InputError if the store holds features of another extractor."""
    extractors = {entry["by"].get("extractor") for entry in features.made.values()}
    for extractor in extractors - {settings.extractor, None}:
        raise InputError(f"{features.path} holds {extractor} features: match them with --extractor {extractor}")


def _provenance(matcher: Matcher, settings: Settings) -> Provenance:
    recorded = settings.recorded("match")
    return {
        "matcher": f"{recorded.pop('extractor')} lightglue",
        "weights": matcher.stages.weights,
        **recorded,
        "precision": matcher.stages.precision,
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
