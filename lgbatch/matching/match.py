"""The match stage: pairs.txt and features.h5 -> matches.h5.

A run matches the pairs that the store lacks and writes each as the engine yields it. run_stage (workspace/stage.py)
skips an unchanged stage; write_items commits the store every few seconds.
"""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

from lgbatch.config import Settings
from lgbatch.errors import InputError
from lgbatch.matching.engine import Outcome, match_pairs, open_matchers
from lgbatch.matching.lightglue import Matcher
from lgbatch.matching.nearest import PROVENANCE, match_nearest_pairs
from lgbatch.pairing.image_names import read_image_pairs
from lgbatch.pairing.pairs_file import PairsFile
from lgbatch.runtime.environment import available_cores
from lgbatch.runtime.precision import stages_kind
from lgbatch.runtime.registry import model_path
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import MatchStore
from lgbatch.storage.provenance import Provenance
from lgbatch.types import Failure, Features, Pair
from lgbatch.workspace.stage import Failures, StageResult, StageRun, item_settings, run_stage, write_items
from lgbatch.workspace.stage_cache import signature, signatures
from lgbatch.workspace.staleness import plan_matching


@dataclass(frozen=True, kw_only=True)
class Matched(StageResult):
    """Result of the match stage, for the pairs of the pairs file."""

    pairs: int
    """Distinct pairs in the file."""
    new: int
    """Pairs matched in this run. The store held the others."""
    matched_pairs: int
    """Pairs with at least one match."""
    matches: int
    duplicates: int
    reversed: int
    self_pairs: int
    """Dropped lines of the pairs file: a repeated pair, a pair in the other order, an image paired with itself."""
    skipped_pairs: int
    """Pairs that were not matched because one of their images failed."""

    def as_repeated(self) -> Self:
        """The result for a run that skips the stage: no pair is new."""
        return replace(super().as_repeated(), new=0)

    def usable(self, images: Iterable[str]) -> list[str]:
        """The images whose features the stage could read: those that are not among its failures."""
        failed = {failure.name for failure in self.failures}
        return [name for name in images if name not in failed]


class _Method(NamedTuple):
    """How pairs are matched."""

    provenance: Provenance
    """Of the matches."""
    match: Callable[[Sequence[Pair], Mapping[str, int], Callable[[str], Features]], Generator[Outcome, None, None]]
    """As engine.match_pairs, without its matchers."""


@dataclass
class _Counts:
    """Pairs and matches of the store so far, and pairs that this run skipped."""

    written: int = 0
    matched_pairs: int = 0
    matches: int = 0
    skipped: int = 0
    """Pairs with an image that failed."""


def match(
    pairs_path: Path,
    features_path: Path,
    store_path: Path,
    *,
    models: Path,
    settings: Settings,
    retry_failed: bool = False,
) -> Matched:
    """Match the pairs of the file that the store lacks, and the stale ones with --on-change recompute.

    A pair with an unknown image is a Failure. An image whose features cannot be read is one Failure, and its pairs are
    skipped, as are the pairs of photos that failed in extraction. A failed image is retried if features.h5 or the
    settings have changed, or with `retry_failed`. A killed run loses the pairs since the last commit (write_items).

    Raises InputError (no pairs file, features of another extractor), ModelError, StoreError (no features, disk full, or
    staleness.plan_matching refuses), and LgbatchError if more failures occur than settings.max_errors allows.
    """

    def open_lightglue(features: FeatureStore) -> _Method:
        _check_extractor(features, settings)
        matchers = open_matchers(models, settings)
        return _Method(_provenance(matchers[0], settings), partial(match_pairs, matchers=matchers))

    stage = _stage(
        store_path,
        settings,
        features=signature(features_path),
        pairs=signature(pairs_path),
        model=signatures([model_path(models, settings.extractor, stages_kind(settings))]),
    )
    stage = replace(stage, paths={"models": models})
    return _run(stage, pairs_path, features_path, store_path, open_lightglue, retry_failed)


def match_nearest(
    pairs_path: Path, features_path: Path, store_path: Path, *, settings: Settings, retry_failed: bool = False
) -> Matched:
    """Match as `match` does, by mutual nearest neighbours instead of LightGlue."""
    stage = _stage(store_path, settings, features=signature(features_path), pairs=signature(pairs_path))
    method = _Method(PROVENANCE, partial(match_nearest_pairs, threads=settings.threads or available_cores()))
    return _run(stage, pairs_path, features_path, store_path, lambda _: method, retry_failed)


def _stage(store_path: Path, settings: Settings, **inputs: Any) -> StageRun[Matched]:
    return StageRun(
        name="match",
        folder=store_path.parent,
        settings=settings,
        inputs=inputs,
        outputs=lambda: [store_path],
        result=Matched,
        reports=frozenset({"pairs", "match"}),
    )


def _run(
    stage: StageRun[Matched],
    pairs_path: Path,
    features_path: Path,
    store_path: Path,
    open_method: Callable[[FeatureStore], _Method],
    retry_failed: bool,
) -> Matched:
    settings = stage.settings
    item_inputs = {"features": stage.inputs["features"], "settings": item_settings(settings, "match")}

    def match_missing(failures: Failures) -> Matched:
        with FeatureStore(features_path) as features:
            failed = failures.of_stages("crawl", "extract")
            names = set(features.names()) - failed  # the features of photos that failed may be stale
            pairs_file = read_image_pairs(pairs_path, names, features.image_folder, failed)
            method = open_method(features)
            with MatchStore(store_path, append=method.provenance) as store:
                if settings.precision == "auto":  # the store may come from another kind of machine
                    store.accept_differences("precision")
                return _match_missing(pairs_file, features, store, method, settings, failures, item_inputs)

    return run_stage(stage, match_missing, retry_failed=retry_failed)


def _match_missing(
    pairs_file: PairsFile,
    features: FeatureStore,
    store: MatchStore,
    method: _Method,
    settings: Settings,
    failures: Failures,
    inputs: Mapping[str, Any],
) -> Matched:
    images = {name: features.record(name) for name in features.names()}
    store.separate_twins(images)
    failed = failures.of_stages("match")

    def has_failed(pair: Pair) -> bool:
        return any([name in failed and failures.known("match", name, inputs) for name in (*pair, " ".join(pair))])

    plan = plan_matching(store, pairs_file.pairs, images, settings.on_change, has_failed)
    for failure in (*pairs_file.failures, *pairs_file.unknown, *plan.failures):
        failures.add(failure)
    failures.check()
    counts = _Counts(0, plan.matched_pairs, plan.matches, pairs_file.skipped + plan.failed_pairs)

    def write(item: Outcome) -> None:
        pair, outcome = item
        if isinstance(outcome, Failure):
            counts.skipped += 1
            failures.add(outcome, inputs)
        else:
            if settings.on_change == "recompute":
                store.remove(pair)
            first, second = images[pair.a], images[pair.b]
            store.write(pair, outcome, first.keypoints, (first.version, second.version))
            counts.written += 1
            counts.matched_pairs += bool(len(outcome.indices))
            counts.matches += len(outcome.indices)

    keypoints = {name: record.keypoints for name, record in images.items()}
    outcomes = method.match(plan.missing, keypoints, features.read)
    write_items(outcomes, write, store, failures, settings, total=len(plan.missing), stage="match", unit="pair")
    return _result(pairs_file, counts, failures)


def _result(pairs_file: PairsFile, counts: _Counts, failures: Failures) -> Matched:
    return Matched(
        pairs=len(pairs_file.pairs) + len(pairs_file.unknown) + pairs_file.skipped,
        new=counts.written,
        matched_pairs=counts.matched_pairs,
        matches=counts.matches,
        duplicates=pairs_file.duplicates,
        reversed=pairs_file.reversed,
        self_pairs=pairs_file.self_pairs,
        skipped_pairs=counts.skipped,
        failures=failures.as_tuple(),
    )


def _check_extractor(features: FeatureStore, settings: Settings) -> None:
    """Raise InputError if the store holds features of another extractor."""
    extractors = {entry["by"].get("extractor") for entry in features.provenances.values()}
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
