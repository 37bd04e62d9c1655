"""Photos that do not fit in the memory, extracted in overlapping tiles.

A keypoint is taken from the tile in whose core it lies. The cores divide the photo. Around its core, a tile has a halo
as wide as the network looks. Tiles begin at multiples of STRIDE, and the remainder of their sides by STRIDE is the
photo's, so that the network pads or pools tiles and photo at the same pixels.

SuperPoint finds the keypoints of the whole photo, with descriptors that differ slightly. The other networks use
figures of the whole image, which are those of the tile here, so their keypoints are similar only: DISK normalises each
channel by its mean and variance over the image, XFeat the grey levels, and ALIKED stretches its coarse maps to the
corners of the image. docs/extractors.md has the measured shares of keypoints that stay.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from lgbatch.runtime.registry import family
from lgbatch.types import ByteArray, FloatArray

SIDES = (2048, 1024, 512)
"""Sides of tiles in pixels, at most. Few, so that the memory of the moment makes few different results."""
STRIDE = 32
"""Multiple of the strides of all networks."""
HALO = {"disk": 128, "aliked": 128, "xfeat": 128, "superpoint": 64}
"""Least width of the overlap on each side of a core in pixels, by family of extractors."""
_FALLBACK = {"aliked": 0.2}
"""Score up to which keypoints count only if the photo has none above it, by family."""
_OVERSAMPLING = 2  # in a tile, to make up for the keypoints of its halo
_AVERAGED = 51  # neighbours in the order of the network

Arrays = Sequence[NDArray[np.generic]]
"""Outputs of an extractor for a batch: keypoints (B, K, 2), scores (B, K), descriptors (B, K, D), counts (B,)."""


class Span(NamedTuple):
    """A tile along one axis, in pixels of the photo; ends are exclusive."""

    start: int
    end: int
    core_start: int
    core_end: int


class _Found(NamedTuple):
    """Keypoints (N, 2) in pixels of the photo, scores (N,), descriptors (N, D), and by what tiles are merged (N,)."""

    keypoints: FloatArray
    scores: FloatArray
    descriptors: FloatArray
    merit: FloatArray

    def rows(self, rows: NDArray[np.generic]) -> "_Found":
        """Return some of the keypoints: by their indices, or where `rows` is True."""
        return _Found(*(values[rows] for values in self))


def extract_in_tiles(
    run: Callable[[ByteArray, int], Arrays], pixels: ByteArray, side: int, extractor: str, max_keypoints: int
) -> Arrays:
    """Extract a photo (H, W, 3) in tiles of up to `side` pixels a side, one of SIDES.

    `run` extracts a batch of pixels (1, H, W, 3) with a number of keypoints. Returns the outputs that it would have for
    the photo, with at most `max_keypoints` keypoints in pixels of the photo: the best of all tiles, equal ones in
    raster order.
    """
    scale = np.ones(2)
    if family(extractor) == "xfeat":  # would resize each tile by another factor than the photo
        height, width = pixels.shape[:2]
        pixels = np.asarray(cv2.resize(pixels, _to_stride(width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
        scale = np.array([width / pixels.shape[1], height / pixels.shape[0]])
    halo = HALO[family(extractor)]
    tiles = []
    for rows in spans(pixels.shape[0], side, halo):
        for columns in spans(pixels.shape[1], side, halo):
            tile = pixels[rows.start : rows.end, columns.start : columns.end]
            tiles.append(_in_core(run(tile[None], _OVERSAMPLING * max_keypoints), rows, columns))
    best = _best(_without_fallbacks(tiles, _FALLBACK.get(family(extractor), 0)), max_keypoints)
    keypoints = (best.keypoints * scale).astype(np.float32)
    return keypoints[None], best.scores[None], best.descriptors[None], np.array([len(keypoints)])


def spans(length: int, side: int, halo: int) -> Iterator[Span]:
    """Divide an axis of `length` pixels into tiles of equal length, up to `side`.

    Neighbours overlap by 2 * halo or more; their cores meet in the middle of the overlap.
    """
    if length <= side:
        yield Span(0, length, 0, length)
        return
    size = side - (side - length) % STRIDE
    rest, step = (length - size) // STRIDE, (size - 2 * halo) // STRIDE
    gaps = -(-rest // step)
    starts = [rest * i // gaps * STRIDE for i in range(gaps + 1)]
    middles = [(start + following + size) // 2 for start, following in itertools.pairwise(starts)]
    for start, core_start, core_end in zip(starts, [0, *middles], [*middles, length], strict=True):
        yield Span(start, start + size, core_start, core_end)


def _to_stride(width: int, height: int) -> tuple[int, int]:
    return max(width // STRIDE, 1) * STRIDE, max(height // STRIDE, 1) * STRIDE


def _in_core(outputs: Arrays, rows: Span, columns: Span) -> _Found:
    """Return the keypoints whose pixel lies in the core of a tile."""
    count = int(outputs[3][0])
    keypoints, scores, descriptors = (np.asarray(output[0, :count], np.float32) for output in outputs[:3])
    keypoints = keypoints + np.array([columns.start, rows.start], np.float32)
    x, y = np.rint(keypoints).T
    inside = (columns.core_start <= x) & (x < columns.core_end) & (rows.core_start <= y) & (y < rows.core_end)
    return _Found(keypoints, scores, descriptors, merits(scores)).rows(inside)


def merits(scores: FloatArray) -> FloatArray:
    """Return the scores (N,) if they fall; otherwise their moving average, as far as it falls.

    ALIKED sorts its keypoints by the scores before their refinement, but returns those after it. The average restores
    the former closely enough to compare tiles.
    """
    if (np.diff(scores) <= 0).all():
        return scores
    width = min(_AVERAGED, len(scores))
    sums, counts = (np.convolve(values, np.ones(width), "same") for values in (scores, np.ones(len(scores))))
    falling: FloatArray = np.minimum.accumulate(sums / counts).astype(np.float32)
    return falling


def _without_fallbacks(tiles: Sequence[_Found], bound: float) -> _Found:
    """Join the keypoints of all tiles. Those of tiles with no score above `bound` are left out if another one has some.

    A network without keypoints above a bound falls back to weaker ones; in the whole photo it would not.
    """
    strong = [tile for tile in tiles if (tile.scores > bound).any()]
    return _Found(*map(np.concatenate, zip(*(strong or tiles), strict=True)))


def _best(found: _Found, count: int) -> _Found:
    x, y = found.keypoints.T
    return found.rows(np.lexsort((x, y, -found.merit))[:count])
