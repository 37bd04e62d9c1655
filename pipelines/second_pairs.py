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
_HOPELESS = ("failed", "no other image", "masked")


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
        names = {photo.name for photo in self.result.unregistered if photo.cause not in _HOPELESS}
        names |= {name for part in self.result.doubtful for name in part.names}
        return sorted(names.union(self.result.weakly_joined).intersection(self.names))


def choose_second_pairs(first: FirstTry, left_out: Sequence[str], settings: Settings) -> tuple[list[Pair], list[Pair]]:
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
            "left_out": digest(left_out),
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
        chosen, support = worthwhile(first, left_out, verified, settings.second_try)
        write_pairs(second.pairs, chosen + support)
        write_pairs(unverified, chosen)
        return StageResult()

    run_stage(stage, choose)
    pairs, replaced = (read_image_pairs(file, first.names, None).pairs for file in (second.pairs, unverified))
    return list(pairs), list(replaced)


def worthwhile(
    first: FirstTry, left_out: Sequence[str], verified: Mapping[frozenset[str], int], part: float
) -> tuple[list[Pair], list[Pair]]:
    """The pairs of the photos that were left out that are not verified, and verified pairs of the same photos.

    A photo needs 3D points to be registered by, hence those verified pairs: up to as many as of the former.
    """
    workspace, names = first.workspace, frozenset(first.names)
    with FeatureStore(workspace.features) as features, MatchStore(workspace.matches) as matches:
        listed = read_image_pairs(first.pairs_file, features.names(), features.image_folder).pairs
        listed = [pair for pair in listed if names.issuperset(pair)]
        most, outside = ceil(round(part * len(listed), 6)), frozenset(left_out)  # two photos have one pair
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
