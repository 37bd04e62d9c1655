"""The match stage: pairs.txt and features.h5 -> matches.h5.

A run matches the pairs that the store lacks and writes each as the engine yields it. run_stage (workspace/stage.py)
skips an unchanged stage; write_items commits the store every few seconds.
"""

import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from lgbatch.types import Failure, Features, Matches, Pair
from lgbatch.workspace.forecast import Forecast
from lgbatch.workspace.stage import (
    Failures,
    StageResult,
    StageRun,
    drop_stale_items,
    item_settings,
    run_stage,
    write_items,
)
from lgbatch.workspace.stage_cache import signature, signatures
from lgbatch.workspace.staleness import plan_matching

_FASTER = "fewer pairs (--pairing auto) or keypoints (--max-keypoints 1024) are faster"


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
    """How pairs are matched, and the provenance of the matches."""

    provenance: Provenance
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
    weights = signatures([model_path(models, settings.extractor, stages_kind(settings))])
    inputs = {"features": signature(features_path), "pairs": signature(pairs_path), "model": weights}
    stage = replace(_stage(store_path, settings, inputs), paths={"models": models})
    return _run(stage, pairs_path, features_path, store_path, models, retry_failed)


def match_nearest(
    pairs_path: Path, features_path: Path, store_path: Path, *, settings: Settings, retry_failed: bool = False
) -> Matched:
    """Match as `match` does, by mutual nearest neighbours instead of LightGlue."""
    stage = _stage(store_path, settings, {"features": signature(features_path), "pairs": signature(pairs_path)})
    return _run(stage, pairs_path, features_path, store_path, None, retry_failed)


def _stage(store_path: Path, settings: Settings, inputs: Mapping[str, Any]) -> StageRun[Matched]:
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
    models: Path | None,
    retry_failed: bool,
) -> Matched:
    def match_file(failures: Failures) -> Matched:
        with open_pair_matcher(features_path, store_path, stage.settings, failures, models) as matcher:
            folder = matcher.features.image_folder
            pairs_file = read_image_pairs(pairs_path, matcher.names, folder, matcher.failed_images)
            matcher.match(pairs_file.pairs, (*pairs_file.failures, *pairs_file.unknown))
            return matcher.result(pairs_file)

    return run_stage(stage, match_file, retry_failed=retry_failed)


@contextmanager
def open_pair_matcher(
    features_path: Path,
    store_path: Path,
    settings: Settings,
    failures: Failures,
    models: Path | None,
    opened: Sequence[Matcher] = (),
) -> Iterator["PairMatcher"]:
    """Open the stores and LightGlue, or mutual nearest neighbours if there is no folder of models.

    `opened` are the matchers of open_matchers for these models and settings, if the caller has them. Raises as `match`
    does.
    """
    inputs = {"features": signature(features_path), "settings": item_settings(settings, "match")}
    with FeatureStore(features_path) as features:
        method = _open_method(features, settings, models, opened)
        with MatchStore(store_path, append=method.provenance) as store:
            if settings.precision == "auto":  # the store may come from another kind of machine
                store.accept_differences("precision")
            yield PairMatcher(features, store, method, settings, failures, inputs)


def _open_method(features: FeatureStore, settings: Settings, models: Path | None, opened: Sequence[Matcher]) -> _Method:
    if models is None:
        return _Method(PROVENANCE, partial(match_nearest_pairs, threads=settings.threads or available_cores()))
    _check_extractor(features, settings)
    matchers = opened or open_matchers(models, settings)
    return _Method(_provenance(matchers[0], settings), partial(match_pairs, matchers=matchers))


class PairMatcher:
    """Matches the pairs that a store lacks, in one call or several. All write to the store and to the ledger."""

    def __init__(
        self,
        features: FeatureStore,
        store: MatchStore,
        method: _Method,
        settings: Settings,
        failures: Failures,
        inputs: Mapping[str, Any],
    ) -> None:
        """`inputs` are those on which it depends whether an item fails."""
        self.features, self.store, self.settings = features, store, settings
        self._match, self._failures, self._inputs = method.match, failures, inputs
        self.failed_images = failures.of_stages("crawl", "extract")  # the features of photos that failed may be stale
        self._images = {name: features.record(name) for name in features.names()}
        self.names = self._images.keys() - self.failed_images
        self._failed = failures.of_stages("match")
        self._counts = _Counts()
        store.separate_twins(self._images)

    def match(
        self,
        pairs: Sequence[Pair],
        failures: Iterable[Failure] = (),
        on_match: Callable[[Pair, Matches], None] = lambda *_: None,
        step: str = "match",
        forecast: Forecast | None = None,
    ) -> None:
        """Match the pairs that the store lacks, and the stale ones with --on-change recompute.

        `failures` are those of the choice of pairs. Calls `on_match` with each new result, in no fixed order, after it
        is written and before it is committed. `step` names the progress bar, `forecast` is that of several calls.
        Raises as `match` does.
        """
        counts = self._counts
        plan = plan_matching(self.store, pairs, self._images, self.settings.on_change, self._has_failed)
        for failure in (*failures, *plan.failures):
            self._failures.add(failure)
        self._failures.check()
        counts.matched_pairs += plan.matched_pairs
        counts.matches += plan.matches
        counts.skipped += plan.failed_pairs

        forecast = forecast or Forecast(len(plan.missing), _FASTER)

        def write(item: Outcome) -> None:
            pair, outcome = item
            self._write(pair, outcome)
            forecast.update()
            if isinstance(outcome, Matches):
                on_match(pair, outcome)

        keypoints = {name: record.keypoints for name, record in self._images.items()}
        outcomes = self._match(plan.missing, keypoints, self.features.read)
        write_items(outcomes, write, self.store, self._failures, total=len(plan.missing), stage=step, unit="pair")

    def result(self, pairs_file: PairsFile) -> Matched:
        """The result of the stage, for all pairs that were to be matched. With --on-change recompute, drops others."""
        drop_stale_items(self.store, self._failures, self.settings)
        counts = self._counts
        return Matched(
            pairs=len(pairs_file.pairs) + len(pairs_file.unknown) + pairs_file.skipped,
            new=counts.written,
            matched_pairs=counts.matched_pairs,
            matches=counts.matches,
            duplicates=pairs_file.duplicates,
            reversed=pairs_file.reversed,
            self_pairs=pairs_file.self_pairs,
            skipped_pairs=pairs_file.skipped + counts.skipped,
            failures=self._failures.as_tuple(),
        )

    def _has_failed(self, pair: Pair) -> bool:
        named = [name for name in (*pair, " ".join(pair)) if name in self._failed]
        return any([self._failures.known("match", name, self._inputs) for name in named])

    def _write(self, pair: Pair, outcome: Matches | Failure) -> None:
        counts = self._counts
        if isinstance(outcome, Failure):
            counts.skipped += 1
            self._failures.add(outcome, self._inputs)
            return
        if self.settings.on_change == "recompute":
            self.store.remove(pair)
        first, second = self._images[pair.a], self._images[pair.b]
        self.store.write(pair, outcome, first.keypoints, (first.version, second.version))
        counts.written += 1
        counts.matched_pairs += bool(len(outcome.indices))
        counts.matches += len(outcome.indices)


def _check_extractor(features: FeatureStore, settings: Settings) -> None:
    """Raise InputError if the store holds features of another extractor. Tell if it does not record one."""
    extractors = {entry["by"].get("extractor") for entry in features.provenances.values()}
    if features.stored_kind is None or None in extractors:
        print(
            f"lgbatch: {features.path} does not record its extractor: its features are matched as those of "
            f"{settings.extractor}; --extractor names another one",
            file=sys.stderr,
        )
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
