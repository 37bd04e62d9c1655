"""Mutual nearest neighbours that pass the ratio test (Lowe, IJCV 2004), as COLMAP matches SIFT. There is no model.

Both directions are tested, and neighbours must be nearer than 0.7 rad. Similarities are computed in full precision, by
blocks of rows; the way back only for the keypoints that pass the way forth. Where the kernels run, similarities in 8
bits tell beforehand which keypoints may pass: few of most pairs.
"""

import math
from collections.abc import Callable, Generator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lgbatch.kernels.library import PANEL, int8_unavailable_reason, two_largest
from lgbatch.pairing.nearest_descriptors import RATIO, is_clear, similarities
from lgbatch.storage.provenance import Provenance
from lgbatch.types import Failure, Features, FloatArray, Matches, Pair
from lgbatch.workspace.prefetch import prefetch
from lgbatch.workspace.signals import until_stopped

MIN_SIMILARITY = float(np.cos(0.7))
PROVENANCE: Provenance = {"matcher": "mutual nearest neighbours", "ratio": RATIO}
_BLOCK = 256
"""Rows that are compared at a time: the whole table of 8192 x 8192 similarities would take 256 MB. Measured on 8192
descriptors: 256 rows take 0.7 to 0.9 of the time of 1024, 64 rows ten times as long."""
_MARGIN = 8
"""By how much similarities in 8 bits may be off, in standard deviations that rounding would give them if its errors
were independent. Measured on pairs of 8192 SIFT descriptors: by up to 6, and no match of 6,828 is lost."""


def match_nearest_pairs(
    pairs: Sequence[Pair], counts: Mapping[str, int], read: Callable[[str], Features], threads: int
) -> Generator[tuple[Pair, Matches | Failure], None, None]:
    """Match pairs ahead of the caller, in their order. Arguments and failures are those of engine.match_pairs.

    Raises InputError at once if the environment names kernels that cannot run here.
    """
    int8_unavailable_reason()

    def match_pair(pair: Pair) -> tuple[Pair, Matches | Failure]:
        descriptors = []
        for name in pair:
            try:
                descriptors.append(read(name).descriptors if counts[name] else np.zeros((0, 1), np.float32))
            except Exception as error:  # ItemError, or for instance MemoryError
                return pair, Failure.from_exception("match", name, error)
        try:
            return pair, mutual_nearest(*descriptors)
        except Exception as error:
            return pair, Failure.from_exception("match", " ".join(pair), error)

    yield from prefetch(match_pair, until_stopped(pairs), threads=threads, depth=4 * threads)


def mutual_nearest(a: FloatArray, b: FloatArray) -> Matches:
    """Match descriptors of norm 1, (N, D) and (M, D) float32. The scores are their similarities. Deterministic."""
    if len(a) < 2 or len(b) < 2:  # there is no second nearest neighbour
        return Matches(np.zeros((0, 2), np.int32), np.zeros(0, np.float32))
    forth, _ = _clear_nearest(a, b)
    rows = np.flatnonzero(forth >= 0)
    columns = np.unique(forth[rows])
    back, similarity = _clear_nearest(b[columns], a)
    place = np.searchsorted(columns, forth[rows])
    mutual = back[place] == rows
    indices = np.stack([rows[mutual], forth[rows][mutual]], axis=1).astype(np.int32)
    return Matches(indices, np.clip(similarity[place[mutual]], 0, 1))


def _clear_nearest(a: FloatArray, b: FloatArray) -> tuple[NDArray[np.intp], FloatArray]:
    """For each row of `a` the nearest row of `b`, or -1 if it is not clearly nearer than the others; its similarity.

    The similarity of rows without such a neighbour may be 0.
    """
    found, best = np.full(len(a), -1, np.intp), np.zeros(len(a), np.float32)
    promising = _promising(a, b) if len(a) > _BLOCK and int8_unavailable_reason() is None else np.arange(len(a))
    for start in range(0, len(promising), _BLOCK):
        part = promising[start : start + _BLOCK]
        similarity = similarities(a[part], b)
        rows, nearest = np.arange(len(part)), similarity.argmax(1)
        first = similarity[rows, nearest]
        similarity[rows, nearest] = -1
        clear = is_clear(first, similarity.max(1)) & (first > MIN_SIMILARITY)
        found[part] = np.where(clear, nearest, -1)
        best[part] = first
    return found, best


def _promising(a: FloatArray, b: FloatArray) -> NDArray[np.intp]:
    """The rows of `a` that may have a clearly nearest neighbour, by similarities in 8 bits; all if one is negative."""
    dimension = a.shape[1]
    if min(a.min(), b.min()) < 0 or dimension % 4:
        return np.arange(len(a))
    a_step, b_step = (max(float(values.max()), 1e-9) / most for values, most in ((a, 255), (b, 127)))
    rows = np.rint(a / a_step).astype(np.uint8)
    columns = np.zeros((-(-len(b) // PANEL) * PANEL, dimension), np.int8)
    columns[: len(b)] = np.rint(b / b_step)
    panels = np.ascontiguousarray(columns.view(np.int32).reshape(-1, PANEL, dimension // 4).swapaxes(1, 2))
    step, margin = np.float32(a_step * b_step), np.float32(_MARGIN * math.hypot(a_step, b_step) / math.sqrt(12))
    first, second = (products.astype(np.float32) * step for products in two_largest(rows, panels))
    return np.flatnonzero(is_clear(first + margin, second - margin) & (first + margin > MIN_SIMILARITY))
