"""The second try: SIFT for the photos that the first one leaves out of the model, or joins to it weakly.

Photos that a learned matcher cannot join, for instance of weak texture, or turned by some angle between quarter turns,
are extracted once more by SIFT, in full resolution and with more keypoints, as are their partners. Mutual nearest
neighbours match them. The folder `second` of the workspace holds these features and matches, in the files of any
workspace. A copy of the database gets both kinds of keypoints and is verified and mapped. If the model is better, it
and its database replace the first ones.
"""

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Self

import numpy as np

from lgbatch.colmap.import_stores import import_joined
from lgbatch.colmap.local_copy import lockable
from lgbatch.colmap.log import colmap_log_off
from lgbatch.colmap.ownership import is_marked
from lgbatch.colmap.sqlite import commit_draft, verified_pairs
from lgbatch.config import Settings
from lgbatch.errors import ReconstructionError
from lgbatch.features.extract import extract
from lgbatch.features.sift import SiftExtractor
from lgbatch.matching.match import match_nearest
from lgbatch.pairing.image_names import read_image_pairs
from lgbatch.pairing.pairs_file import write_pairs
from lgbatch.pairing.promise import most_promising, pair_hints
from lgbatch.photos.crawl import Crawl
from lgbatch.reconstruction.model_folders import numbered_models, remove_draft, replace_models
from lgbatch.reconstruction.reconstruct import verify_and_map, with_causes
from lgbatch.reconstruction.results import Doubtful, Model, Reconstruction, Unregistered, Warned
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import MatchStore
from lgbatch.types import Pair
from lgbatch.workspace.folder import Workspace
from lgbatch.workspace.stage import Failures, StageResult, StageRun, run_stage
from lgbatch.workspace.stage_cache import StageCache, recorded_figures, signature

_LONG_SIDE, _KEYPOINTS = 3200, 8192
_PARTNERS = 20
"""Most pairs per photo, on average."""
_PARTS = {"models": Model, "unregistered": Unregistered, "doubtful": Doubtful, "warnings": Warned}
_HOPELESS = ("failed", "no other image", "masked")


@dataclass(frozen=True, kw_only=True)
class SecondTry(Reconstruction):
    """The result of the better try."""

    tried_photos: int = 0
    """Photos that were left out or weakly joined, and that have pairs to try."""
    tried_pairs: int = 0
    failed_photos: int = 0
    """Photos whose features could not be extracted, for instance because the memory was short."""
    long_side: int = 0
    """Long side at which their features were extracted, in pixels."""
    registered_before: int = 0
    verified_before: int = 0
    accepted: bool = False
    """Whether the model of the second try is better, and has replaced the first one."""
    seconds_second: float = 0.0

    def figures(self) -> dict[str, Any]:
        """What the summary tells of the second try."""
        return {
            "photos": self.tried_photos,
            "pairs": self.tried_pairs,
            "failed": self.failed_photos,
            "long_side": self.long_side,
            "better": self.accepted,
            "registered_before": self.registered_before,
            "registered": _registered(self),
            "verified_before": self.verified_before,
            "verified": self.verified_pairs,
        }

    def as_repeated(self) -> Self:
        """The result of a run that skips the stage: it takes no time."""
        return replace(super().as_repeated(), seconds_second=0.0)


@dataclass(frozen=True, kw_only=True)
class _Chosen(StageResult):
    """The pairs file: pairs of the photos that were left out, then verified pairs of the first try."""

    left_out: int
    """Number of the former."""


@dataclass(frozen=True)
class FirstTry:
    """What the second try goes on from."""

    workspace: Workspace
    photos: Path
    """Folder of the photos."""
    crawled: Crawl
    names: Sequence[str]
    """The images that could be read and matched."""
    pairs_file: Path
    result: Reconstruction

    def left_out(self) -> list[str]:
        """The images that are worth a second try."""
        names = {photo.name for photo in self.result.unregistered if photo.cause not in _HOPELESS}
        names |= {name for part in self.result.doubtful for name in part.names}
        return sorted(names.union(self.result.weakly_joined).intersection(self.names))


def second_try(first: FirstTry, settings: Settings) -> SecondTry:
    """Try the photos again that are left out or weakly joined, and keep the better model.

    Leaves everything as it is if there are none, if settings.second_try is 0, or if lgbatch did not write the database.
    Raises as extract, match, import_stores and reconstruct do.
    """
    workspace = first.workspace
    before = [file for model in numbered_models(workspace.sparse) for file in model.rglob("*")]
    stage = StageRun(
        name="second",
        folder=workspace.root,
        settings=settings,
        inputs={
            "pairs": signature(first.pairs_file),
            "features": signature(workspace.features),
            "matches": signature(workspace.matches),
            "pycolmap": metadata.version("pycolmap"),
        },
        outputs=lambda: [workspace.database, *before, *numbered_models(workspace.sparse)],
        result=SecondTry,
        parts=_PARTS,
    )
    result = run_stage(stage, lambda _: _try(first, settings))
    if result.accepted:
        return with_causes(result, workspace.root, first.photos)
    return replace(result, unregistered=first.result.unregistered)


def after_second_try(first: Reconstruction, workspace: Workspace, photos: Path) -> Reconstruction:
    """The result that describes the model of a workspace, given that of a first try that was skipped: it may be that of
    a second try.
    """
    figures = recorded_figures(workspace.root, "second")
    unchanged = "second" in StageCache(workspace.root, "").unchanged_stages()
    if not (first.finished_already and unchanged and figures.get("accepted")):
        return first
    nested = {name: tuple(kind(**values) for values in figures[name]) for name, kind in _PARTS.items()}
    return with_causes(SecondTry(**figures | nested).as_repeated(), workspace.root, photos)


def _try(first: FirstTry, settings: Settings) -> SecondTry:
    start, workspace, second = time.perf_counter(), first.workspace, first.workspace.second
    result = _own(first.result)
    left_out = first.left_out()
    if not left_out or not settings.second_try or not is_marked(workspace.database):
        return result
    second.root.mkdir(exist_ok=True)
    pairs, replaced = _choose(first, left_out, settings)
    if not pairs:
        return result
    stronger = replace(settings, extractor="sift", max_keypoints=_KEYPOINTS, resize=_LONG_SIDE, max_errors=0)
    paired = {name for pair in pairs for name in pair}
    crawled = replace(first.crawled, images=[ref for ref in first.crawled.images if ref.name in paired], failures=[])
    extracted = extract(
        first.photos, second.features, models=second.root, settings=stronger, crawled=crawled, open_extractor=_open_sift
    )
    match_nearest(second.pairs, second.features, second.matches, settings=stronger)
    import_joined(workspace, first.photos, first.names, first.pairs_file, settings, replaced)
    joined = _own(verify_and_map(second.database, first.photos, second.sparse, settings, progress=True))
    accepted = _is_better(joined, result)
    if accepted:
        _publish(second, workspace)
    _clean(second)
    return replace(
        joined if accepted else result,
        tried_photos=len(paired.intersection(left_out)),
        tried_pairs=len(pairs),
        failed_photos=len(extracted.failures),
        long_side=min(_LONG_SIDE, result.longest_side),
        registered_before=_registered(result),
        verified_before=result.verified_pairs,
        accepted=accepted,
        seconds_second=time.perf_counter() - start,
    )


def _open_sift(_: Path, settings: Settings) -> SiftExtractor:
    return SiftExtractor(settings, largest=True)


def _own(result: Reconstruction) -> SecondTry:
    values = {name: getattr(result, name) for name in Reconstruction.__dataclass_fields__}
    return SecondTry(**values | {"finished_already": False})


def _choose(first: FirstTry, left_out: Sequence[str], settings: Settings) -> tuple[list[Pair], list[Pair]]:
    """Choose the pairs of the second try, and write them to its pairs file. Returns them, and those not verified yet.

    Stays as it is until features, matches or pairs change, also if a second try has changed the database.
    """
    workspace, second = first.workspace, first.workspace.second
    stage = StageRun(
        name="pairs",
        folder=second.root,
        settings=settings,
        inputs={
            "features": signature(workspace.features),
            "matches": signature(workspace.matches),
            "pairs": signature(first.pairs_file),
            "part": settings.second_try,
        },
        outputs=lambda: [second.pairs],
        result=_Chosen,
    )

    def choose(_: Failures) -> _Chosen:
        shutil.copyfile(workspace.database, second.database)
        with colmap_log_off(), lockable(second.database) as local:
            verified = verified_pairs(local)
        chosen, support = _worthwhile(first, left_out, verified, settings.second_try)
        write_pairs(second.pairs, chosen + support)
        return _Chosen(left_out=len(chosen))

    count = run_stage(stage, choose).left_out
    pairs = read_image_pairs(second.pairs, first.names, None).pairs
    return pairs, pairs[:count]


def _worthwhile(
    first: FirstTry, left_out: Sequence[str], verified: Mapping[frozenset[str], int], part: float
) -> tuple[list[Pair], list[Pair]]:
    """The pairs of the photos that were left out that are not verified, and verified pairs of the same photos.

    A photo needs 3D points to be registered by, hence those verified pairs: up to as many as of the former.
    """
    workspace, names = first.workspace, frozenset(first.names)
    with FeatureStore(workspace.features) as features, MatchStore(workspace.matches) as matches:
        listed = read_image_pairs(first.pairs_file, features.names(), features.image_folder).pairs
        listed = [pair for pair in listed if names.issuperset(pair)]
        most, outside = int(part * len(listed)), frozenset(left_out)
        chosen = [pair for pair in listed if not outside.isdisjoint(pair) and frozenset(pair) not in verified]
        count = min(most, _PARTNERS * len(left_out))
        if len(chosen) > count:
            paired = {name for pair in chosen for name in pair}
            refs = [ref for ref in first.crawled.images if ref.name in paired]
            chosen = most_promising(chosen, left_out, pair_hints(chosen, refs, features, matches), count)
    tried = {name for pair in chosen for name in pair}
    support = [pair for pair in listed if frozenset(pair) in verified and tried.issuperset(pair)]
    inliers = np.array([[verified[frozenset(pair)] for pair in support]], np.float64)
    return chosen, most_promising(support, tried, inliers, min(most - len(chosen), len(chosen)))


def _registered(result: Reconstruction) -> int:
    return result.models[0].registered_images if result.models else 0


def _is_better(second: Reconstruction, first: Reconstruction) -> bool:
    """Whether the largest model has more images that are not doubtful, or as many and more pairs are verified.

    It must have no fewer images and observations besides.
    """
    if not second.models or not first.models:
        return bool(second.models)
    (certain, registered, observations), before = _size(second), _size(first)
    return (registered >= before[1] and observations >= before[2]) and (
        (certain, second.verified_pairs) > (before[0], first.verified_pairs)
    )


def _size(result: Reconstruction) -> tuple[int, int, int]:
    """The images of the largest model that are not doubtful, all its images, and its observations."""
    doubtful = sum(len(part.names) for part in result.doubtful if part.model == 0)
    return _registered(result) - doubtful, _registered(result), result.models[0].observations


def _publish(second: Workspace, workspace: Workspace) -> None:
    """Replace models and database by those of the second try. If it is killed between the two, the next run repeats."""
    models = sorted(numbered_models(second.sparse), key=lambda folder: int(folder.name))
    try:
        remove_draft(workspace.sparse)
        replace_models(models, workspace.sparse)
        remove_draft(workspace.sparse)
        commit_draft(second.database, workspace.database)
    except OSError as error:
        raise ReconstructionError(f"cannot write {workspace.sparse}: {error}") from error


def _clean(second: Workspace) -> None:
    """Delete the database and the models of a finished second try; its features and matches stay."""
    second.database.unlink(missing_ok=True)
    shutil.rmtree(second.sparse, ignore_errors=True)
