"""Checks of the input of an import: COLMAP accepts more than it can use."""

from collections.abc import Mapping, Set

import numpy as np

from lgbatch.colmap.sqlite import REBUILD_HINT
from lgbatch.errors import DatabaseError
from lgbatch.types import FloatArray, IntArray, Pair, PairList


def check_pair_list(pairs: PairList, names: Set[str]) -> None:
    """Raise DatabaseError if an image has no features, is paired with itself, or a pair is repeated in any order."""
    is_wrong = ~pairs.between(names) | (pairs.ids[:, 0] == pairs.ids[:, 1])
    is_wrong[pairs.repeats()[0]] = True
    for a, b in pairs.where(is_wrong)[:1]:
        for name in (a, b):
            if name not in names:
                raise DatabaseError(f"pair {a} {b}: {name} has no features: extract it or remove the pair")
        if a == b:
            raise DatabaseError(f"pair {a} {b} pairs an image with itself: remove it from the matches")
        raise DatabaseError(f"pair {a} {b} appears twice: remove one of the two from the matches")


def check_keypoints(name: str, stored: FloatArray, keypoints: FloatArray) -> None:
    """Raise DatabaseError if an image has other keypoints in the database. COLMAP's own have more than two columns."""
    if np.array_equal(stored, keypoints):
        return
    if stored.shape[1] > keypoints.shape[1]:
        raise DatabaseError(
            f"image {name} has keypoints of another extractor in the database, such as COLMAP's SIFT: remove them by "
            "`colmap database_cleaner --type features`, which keeps images, cameras and rigs, or use another workspace"
        )
    raise DatabaseError(f"image {name} has different keypoints in the database: {REBUILD_HINT}")


def check_indices(pair: Pair, indices: IntArray, keypoint_counts: Mapping[str, int]) -> None:
    """Raise DatabaseError on matches that COLMAP would accept, but crash on later or misread."""
    counts = keypoint_counts[pair.a], keypoint_counts[pair.b]
    if indices.ndim != 2 or indices.shape[1] != 2 or not np.issubdtype(indices.dtype, np.integer):
        problem = "are not (K, 2) integers"
    elif len(indices) == 0:
        return
    elif (indices.min(0) < 0).any() or (indices.max(0) >= counts).any():
        problem = f"refer to keypoints beyond the {counts[0]} and {counts[1]} of its images"
    elif any(np.bincount(column).max() > 1 for column in indices.T):
        problem = "use one keypoint twice"
    else:
        return
    raise DatabaseError(f"the matches of pair {pair.a} {pair.b} {problem}: match it again")
