"""The pairs of the second try (second_try.py)."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path

import numpy as np

from lgbatch.colmap.local_copy import lockable
from lgbatch.colmap.log import colmap_log_off
from lgbatch.colmap.sqlite import verified_pairs
from lgbatch.config import Settings
from lgbatch.pairing.image_names import read_image_pairs
from lgbatch.pairing.pairs_file import write_pairs
from lgbatch.pairing.promise import most_promising, pair_hints
from lgbatch.photos.crawl import Crawl
from lgbatch.reconstruction.results import Reconstruction
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import MatchStore
from lgbatch.types import Pair
from lgbatch.workspace.folder import Workspace
from lgbatch.workspace.stage import Failures, StageResult, StageRun, run_stage
from lgbatch.workspace.stage_cache import digest, signature

_PARTNERS = 20
"""Most pairs per photo, on average."""
_JOINING = 10
"""Most pairs that are tried to join smaller models to the largest one."""
_NOT_TRIED = ("failed", "no other image", "masked", "other model")


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
    retry_failed: bool = False

    def left_out(self) -> list[str]:
        """The images that are worth a second try."""
        names = {photo.name for photo in self.result.unregistered if photo.cause not in _NOT_TRIED}
        names |= {name for part in self.result.doubtful for name in part.names}
        return sorted(names.union(self.result.weakly_joined).intersection(self.names))

    def in_smaller_models(self) -> list[str]:
        """The images of smaller models that are not left out: they may belong to the largest model, or elsewhere."""
        names = {photo.name for photo in self.result.unregistered if photo.cause == "other model"}
        return sorted(names.intersection(self.names).difference(self.left_out()))


def choose_second_pairs(first: FirstTry, settings: Settings) -> tuple[list[Pair], list[Pair]]:
    """Choose the pairs of the second try, and write them to its pairs file. Returns them, and those not verified yet.

    Stays as it is until features, matches, pairs or the first model change, also if a second try has changed the
    database. The latter pairs have a file of their own, so that a photo that is gone does not mix up the two.
    """
    workspace, second = first.workspace, first.workspace.second
    unverified = second.root / "unverified.txt"
    stage = StageRun(
        name="pairs",
        folder=second.root,
        settings=settings,
        inputs={
            "features": signature(workspace.features),
            "matches": signature(workspace.matches),
            "pairs": signature(first.pairs_file),
            "names": digest(list(first.names)),
            "left_out": digest([first.left_out(), first.in_smaller_models()]),
            "model": digest([first.result.verified_pairs, *map(asdict, first.result.models)]),
            "part": settings.second_try,
        },
        outputs=lambda: [second.pairs, unverified],
        result=StageResult,
    )

    def choose(_: Failures) -> StageResult:
        shutil.copyfile(workspace.database, second.database)
        with colmap_log_off(), lockable(second.database) as local:
            verified = verified_pairs(local)
        chosen, support = worthwhile(first, verified, settings.second_try)
        write_pairs(second.pairs, chosen + support)
        write_pairs(unverified, chosen)
        return StageResult()

    run_stage(stage, choose)
    pairs, replaced = (read_image_pairs(file, first.names, None).pairs for file in (second.pairs, unverified))
    return list(pairs), list(replaced)


def worthwhile(first: FirstTry, verified: Mapping[frozenset[str], int], part: float) -> tuple[list[Pair], list[Pair]]:
    """The pairs to try that are not verified, and verified pairs of the same photos. No more than this part of all.

    The former are pairs of the photos that were left out, and a few that may join smaller models to the largest one. A
    photo needs 3D points to be registered by, hence the latter: up to as many as of the former.
    """
    workspace, names = first.workspace, frozenset(first.names)
    left_out, smaller = first.left_out(), first.in_smaller_models()
    outside, largest = frozenset(left_out), names.difference(photo.name for photo in first.result.unregistered)
    with FeatureStore(workspace.features) as features, MatchStore(workspace.matches) as matches:
        pairs_file = read_image_pairs(first.pairs_file, features.names(), features.image_folder)
        listed = [pair for pair in pairs_file.pairs if names.issuperset(pair)]
        unverified = [pair for pair in listed if frozenset(pair) not in verified]
        most = ceil(round(part * len(listed), 6))  # two photos have one pair

        def best(pairs: Sequence[Pair], images: Sequence[str], count: int) -> list[Pair]:
            if len(pairs) <= count:
                return list(pairs)
            paired = {name for pair in pairs for name in pair}
            refs = [ref for ref in first.crawled.images if ref.name in paired]
            return most_promising(pairs, images, pair_hints(pairs, refs, features, matches), count)

        chosen = [pair for pair in unverified if not outside.isdisjoint(pair)]
        chosen = best(chosen, left_out, min(most, _PARTNERS * len(left_out)))
        joining = [pair for pair in unverified if len(largest.intersection(pair)) == 1]
        joining = [pair for pair in joining if not frozenset(smaller).isdisjoint(pair) and outside.isdisjoint(pair)]
        chosen += best(joining, smaller, min(most - len(chosen), _JOINING))
    tried = {name for pair in chosen for name in pair}
    support = [pair for pair in listed if frozenset(pair) in verified and tried.issuperset(pair)]
    inliers = np.array([[verified[frozenset(pair)] for pair in support]], np.float64)
    return chosen, most_promising(support, tried, inliers, min(most - len(chosen), len(chosen)))
