"""The second try: SIFT for the photos that the first one leaves out of the model, or joins to it weakly.

Photos that a learned matcher cannot join, for instance of weak texture, or turned by some angle between quarter turns,
are extracted once more by SIFT, in full resolution and with more keypoints, as are their partners. Mutual nearest
neighbours match them. The folder `second` of the workspace holds these features and matches, in the files of any
workspace. A copy of the database gets both kinds of keypoints and is verified and mapped. If the model is better, it
and its database replace the first ones.
"""

import shutil
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, Self

from lgbatch.colmap.import_stores import import_joined
from lgbatch.colmap.ownership import is_marked
from lgbatch.colmap.sqlite import commit_draft
from lgbatch.config import Settings
from lgbatch.errors import LgbatchError, ReconstructionError, WorkspaceError
from lgbatch.features.extract import extract
from lgbatch.features.sift import SiftExtractor
from lgbatch.matching.match import match_nearest
from lgbatch.pipelines.second_pairs import FirstTry, choose_second_pairs
from lgbatch.reconstruction.model_folders import numbered_models, remove_draft, replace_models
from lgbatch.reconstruction.reconstruct import verify_and_map, with_causes
from lgbatch.reconstruction.results import Doubtful, Model, Reconstruction, Unregistered, Warned
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.upkeep.remove import remove_images
from lgbatch.types import Failure, escape
from lgbatch.workspace.folder import Workspace
from lgbatch.workspace.stage import Failures, StageRun, is_finished, run_stage
from lgbatch.workspace.stage_cache import StageCache, digest, has_second_try, recorded_figures, signature

_LONG_SIDE, _KEYPOINTS = 3200, 8192
_MARK = "second-try.txt"
"""File that tells that the folder is that of a second try."""
_PARTS = {"models": Model, "unregistered": Unregistered, "doubtful": Doubtful, "warnings": Warned}


@dataclass(frozen=True, kw_only=True)
class SecondTry(Reconstruction):
    """The result of the better try."""

    tried_photos: int = 0
    """Photos that were left out or weakly joined, or are in a smaller model, and that have pairs to try."""
    tried_pairs: int = 0
    failed_photos: int = 0
    """Photos whose features could not be extracted, for instance because the memory was short."""
    long_side: int = 0
    """Long side at which their features were extracted, in pixels."""
    registered_before: int = 0
    """Images of the largest model of the first try."""
    in_models_before: int = 0
    """Images of all its models."""
    verified_before: int = 0
    accepted: bool = False
    """Whether the model of the second try is better, and has replaced the first one."""
    seconds_second: float = 0.0
    problem: str = ""
    """The error that ended the second try: the result is that of the first one."""

    def figures(self) -> dict[str, Any]:
        """What the summary tells of the second try."""
        if self.problem:
            return {"left_out": self.problem}
        return {
            "photos": self.tried_photos,
            "pairs": self.tried_pairs,
            "failed": self.failed_photos,
            "long_side": self.long_side,
            "better": self.accepted,
            "registered_before": self.registered_before,
            "registered": _size(self).largest,
            "in_models_before": self.in_models_before,
            "in_models": _size(self).images,
            "verified_before": self.verified_before,
            "verified": self.verified_pairs,
        }

    def as_repeated(self) -> Self:
        """The result of a run that skips the stage: it takes no time."""
        return replace(super().as_repeated(), seconds_second=0.0)


def second_try(first: FirstTry, settings: Settings) -> SecondTry:
    """Try the photos again that are left out or weakly joined, and keep the better model.

    Leaves everything as it is if there are none, if settings.second_try is 0, or if lgbatch did not write the database.
    An error leaves out the second try: the result has the first model, and the `problem`. Raises ReconstructionError if
    the better model cannot be written.
    """
    workspace = first.workspace
    stage = _stage(workspace, first.names, first.pairs_file, settings)
    try:
        result = run_stage(stage, lambda failures: _try(first, settings, failures), retry_failed=first.retry_failed)
    except _PublishError:
        raise
    except (LgbatchError, OSError) as error:
        return replace(_own(first.result), problem=escape(str(error)))
    if result.accepted:
        return with_causes(result, workspace.root, first.photos)
    return replace(result, unregistered=first.result.unregistered)


def outdate_second_try(
    workspace: Workspace, names: Sequence[str], pairs_file: Path, settings: Settings, *, retry_failed: bool = False
) -> None:
    """Let import and reconstruction run again if the model is that of a second try which does not fit the run."""
    if recorded_figures(workspace.root, "second").get("accepted"):
        stage = _stage(workspace, names, pairs_file, settings)
        if not is_finished(stage, retry_failed=retry_failed):
            StageCache(workspace.root, "").outdate(("import", "reconstruct"))
            StageCache(workspace.root, "second").forget()  # the model is that of the first try from now on


def _stage(workspace: Workspace, names: Sequence[str], pairs_file: Path, settings: Settings) -> StageRun[SecondTry]:
    before = [file for model in numbered_models(workspace.sparse) for file in model.rglob("*") if file.is_file()]
    return StageRun(
        name="second",
        folder=workspace.root,
        settings=settings,
        inputs={
            "names": digest(list(names)),
            "pairs": signature(pairs_file),
            "features": signature(workspace.features),
            "matches": signature(workspace.matches),
            "pycolmap": metadata.version("pycolmap"),
        },
        outputs=lambda: [workspace.database, *before, *numbered_models(workspace.sparse)],
        result=SecondTry,
        parts=_PARTS,
        reports=frozenset({"second"}),
    )


def after_second_try(first: Reconstruction, workspace: Workspace, photos: Path) -> Reconstruction:
    """The result that describes the model of a workspace, given that of a first try that was skipped: it may be that of
    a second try.
    """
    if not (first.finished_already and has_second_try(workspace.root)):
        return first
    figures = recorded_figures(workspace.root, "second")
    parts = _PARTS | {"failures": Failure}
    nested = {name: tuple(kind(**values) for values in figures[name]) for name, kind in parts.items()}
    return with_causes(SecondTry(**figures | nested).as_repeated(), workspace.root, photos)


def remove_tried_images(workspace: Workspace, names: Collection[str]) -> None:
    """Remove images and their pairs from the stores of the second try, if they are there.

    Raises StoreError if a store cannot be written.
    """
    second = workspace.second
    if (second.root / _MARK).is_file() and second.features.is_file():
        with FeatureStore(second.features) as features:
            stored = [name for name in names if name in features]
        if stored:
            remove_images(second.features, second.matches, stored)


def _try(first: FirstTry, settings: Settings, failures: Failures) -> SecondTry:
    start, workspace, second = time.perf_counter(), first.workspace, first.workspace.second
    result = _own(first.result)
    tried = [*first.left_out(), *first.in_smaller_models()]
    if not tried or not settings.second_try or not is_marked(workspace.database):
        return result
    _take(second.root)
    pairs, replaced = choose_second_pairs(first, settings)
    if not pairs:
        _clean(second)
        return result
    stronger = replace(
        settings, extractor="sift", max_keypoints=_KEYPOINTS, resize=_LONG_SIDE, max_errors=0, on_change="recompute"
    )
    paired = {name for pair in pairs for name in pair}
    crawled = replace(first.crawled, images=[ref for ref in first.crawled.images if ref.name in paired], failures=[])
    extracted = extract(
        first.photos,
        second.features,
        models=second.root,
        settings=stronger,
        crawled=crawled,
        retry_failed=first.retry_failed,
        open_extractor=_open_sift,
    )
    matched = match_nearest(
        second.pairs, second.features, second.matches, settings=stronger, retry_failed=first.retry_failed
    )
    for failure in extracted.failures + matched.failures:
        failures.add(replace(failure, stage="second"))
    import_joined(workspace, first.photos, first.names, first.pairs_file, settings, replaced)
    joined = _own(verify_and_map(second.database, first.photos, second.sparse, settings, progress=True))
    accepted = _is_better(joined, result)
    if accepted:
        _publish(second, workspace)
    _clean(second)
    return replace(
        joined if accepted else result,
        failures=failures.as_tuple(),
        tried_photos=len(paired.intersection(tried)),
        tried_pairs=len(pairs),
        failed_photos=len(extracted.failures),
        long_side=min(_LONG_SIDE, result.longest_side),
        registered_before=_size(result).largest,
        in_models_before=_size(result).images,
        verified_before=result.verified_pairs,
        accepted=accepted,
        seconds_second=time.perf_counter() - start,
    )


def _take(folder: Path) -> None:
    """Create the folder of the second try. Raises WorkspaceError if there is one with other files."""
    mark = folder / _MARK
    folder.mkdir(exist_ok=True)
    if not mark.is_file():
        if any(folder.iterdir()):
            raise WorkspaceError(f"{folder} has files that are not of a second try: move it away")
        mark.write_text("lgbatch run writes this folder: see docs/second-try.md. You may delete it.\n")


def _open_sift(_: Path, settings: Settings, at_once: int) -> SiftExtractor:
    return SiftExtractor(settings, at_once, largest=True)


def _own(result: Reconstruction) -> SecondTry:
    values = {name: getattr(result, name) for name in Reconstruction.__dataclass_fields__}
    return SecondTry(**values | {"finished_already": False})


class _Size(NamedTuple):
    """What a try has registered."""

    largest: int
    """Images of the largest model."""
    images: int
    """Images of all models."""
    observations: int
    certain: int
    """Images of all models that are not doubtful."""
    certain_in_largest: int


def _size(result: Reconstruction) -> _Size:
    largest = result.models[0].registered_images if result.models else 0
    others = {photo.name for photo in result.unregistered if photo.cause == "other model"}
    images, observations = largest + len(others), sum(model.observations for model in result.models)
    doubtful = {name for part in result.doubtful for name in part.names if part.model == 0}
    elsewhere = {name for part in result.doubtful for name in part.names if name in others}
    return _Size(largest, images, observations, images - len(doubtful | elsewhere), largest - len(doubtful))


def _is_better(second: Reconstruction, first: Reconstruction) -> bool:
    """Whether more images are registered that are not doubtful, or more of them in one model, or more pairs verified.

    The first of these that differs decides. The largest model must not have fewer images, nor all models fewer images
    or observations. So one model of all images is best, and models of separate scenes may each grow.
    """
    if not second.models or not first.models:
        return bool(second.models)
    after, before = _size(second), _size(first)
    loses = after.largest < before.largest or after.images < before.images or after.observations < before.observations
    return not loses and (
        (after.certain, after.certain_in_largest, second.verified_pairs)
        > (before.certain, before.certain_in_largest, first.verified_pairs)
    )


class _PublishError(ReconstructionError):
    """The better model cannot be written: models and database may differ, so the run ends. The next one repeats."""


def _publish(second: Workspace, workspace: Workspace) -> None:
    """Replace models and database by those of the second try. If it is killed between the two, the next run repeats."""
    models = sorted(numbered_models(second.sparse), key=lambda folder: int(folder.name))
    try:
        remove_draft(workspace.sparse)
        replace_models(models, workspace.sparse)
        remove_draft(workspace.sparse)
        commit_draft(second.database, workspace.database)
    except OSError as error:
        raise _PublishError(f"cannot write {workspace.sparse}: {error}") from error


def _clean(second: Workspace) -> None:
    """Delete the database and the models of a finished second try; its features and matches stay."""
    second.database.unlink(missing_ok=True)
    shutil.rmtree(second.sparse, ignore_errors=True)
