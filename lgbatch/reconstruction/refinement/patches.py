"""Alignment of small patches between views by their brightness.

The inverse compositional algorithm (Baker and Matthews, Lucas-Kanade 20 years on, IJCV 2004) on brightness normalised
to zero mean and unit variance, as in ECC (Evangelidis and Psarakis, PAMI 2008), with the two unknowns of a shift.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lgbatch.types import BoolArray, ByteArray, FloatArray, LongArray

Array = NDArray[np.float64]
RADIUS = 7
"""Pixels of the reference view. A patch has 2 * RADIUS + 1 pixels a side."""
_SIDE = 2 * RADIUS + 1
_SIGMA = 3.75  # of the Gaussian weights, in pixels of the reference view
_ITERATIONS = 10
_CONVERGED = 0.01  # pixels of the reference view
_BLOCK = 2048  # patches that are aligned at once

_axis = np.arange(-RADIUS, RADIUS + 1, dtype=np.float32)
_OFFSETS = np.stack(np.meshgrid(_axis, _axis), axis=-1).reshape(-1, 2)  # (S, 2) x and y
_WEIGHTS = np.exp(-(_OFFSETS**2).sum(axis=1) / (2 * _SIGMA**2)).astype(np.float32)
_WEIGHTS /= _WEIGHTS.sum()


@dataclass(frozen=True, eq=False)
class Templates:
    """Patches of the reference views: S pixels each, normalised by the Gaussian weights."""

    brightness: FloatArray
    """(N, S) float32, weighted mean 0 and weighted variance 1."""
    descent: FloatArray
    """(N, 2, S) float32: the shift, in pixels of the reference view, is the product with normalised brightness."""
    usable: BoolArray
    """(N,) the patch is inside its photo, and has texture in both directions."""

    def __getitem__(self, rows: slice | LongArray) -> "Templates":
        """Return some of the patches."""
        return Templates(self.brightness[rows], self.descent[rows], self.usable[rows])

    def put(self, rows: LongArray, other: "Templates") -> None:
        """Replace some of the patches."""
        self.brightness[rows], self.descent[rows], self.usable[rows] = other.brightness, other.descent, other.usable


def no_templates(count: int) -> Templates:
    """Return `count` patches that are not usable."""
    size = _SIDE**2
    return Templates(np.zeros((count, size), np.float32), np.zeros((count, 2, size), np.float32), np.zeros(count, bool))


def cut_templates(photo: ByteArray, centres: Array) -> Templates:
    """Cut the patches at `centres` (N, 2) out of a grey photo (H, W); top-left pixel centre (0, 0)."""
    side = _SIDE + 2
    axis = np.arange(-RADIUS - 1, RADIUS + 2, dtype=np.float32)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    inside, values = sample(photo, centres.astype(np.float32)[:, None] + grid)
    values = values.reshape(-1, side, side)
    x = (values[:, 1:-1, 2:] - values[:, 1:-1, :-2]) / 2
    y = (values[:, 2:, 1:-1] - values[:, :-2, 1:-1]) / 2
    brightness, deviation = _normalise(values[:, 1:-1, 1:-1].reshape(-1, _SIDE**2))
    gradient = np.stack([x, y], axis=1).reshape(-1, 2, _SIDE**2) / np.maximum(deviation, 1e-6)[:, None, None]
    # A change of brightness or contrast is no shift.
    gradient -= (gradient @ _WEIGHTS)[..., None]
    gradient -= np.einsum("nis,ns->ni", gradient, brightness * _WEIGHTS)[..., None] * brightness[:, None]
    weighted = gradient * _WEIGHTS
    hessian = np.einsum("nis,njs->nij", weighted, gradient).astype(np.float64)
    determinant = np.linalg.det(hessian)
    usable = inside & (deviation > 1) & (determinant > 1e-6)
    hessian[~usable] = np.eye(2)
    return Templates(brightness, (np.linalg.inv(hessian) @ weighted).astype(np.float32), usable)


@dataclass(frozen=True, eq=False)
class Aligned:
    """Patches found in another view."""

    positions: Array
    """(N, 2) pixels, top-left pixel centre (0, 0)."""
    correlation: FloatArray
    """(N,) weighted correlation of the brightness with the reference view's; -1 where the patch left the photo."""


def align(photo: ByteArray, templates: Templates, positions: Array, maps: Array) -> Aligned:
    """Move `positions` (N, 2) in a grey photo (H, W) to where it agrees with the templates.

    `maps` (N, 2, 2) are the linear maps from offsets in the reference view to offsets in this photo.
    """
    found, correlation = positions.copy(), np.full(len(positions), -1, np.float32)
    for start in range(0, len(positions), _BLOCK):
        block = slice(start, start + _BLOCK)
        found[block], correlation[block] = _align(photo, templates[block], positions[block], maps[block])
    return Aligned(found, correlation)


def _align(photo: ByteArray, templates: Templates, positions: Array, maps: Array) -> tuple[Array, FloatArray]:
    found, correlation = positions.copy(), np.full(len(positions), -1, np.float32)
    moving = np.flatnonzero(templates.usable & np.isfinite(maps).all(axis=(1, 2)))
    grid = np.einsum("nij,sj->nsi", maps, _OFFSETS).astype(np.float32)
    for _ in range(_ITERATIONS):
        if not len(moving):
            break
        inside, values = sample(photo, found[moving, None].astype(np.float32) + grid[moving])
        brightness, _ = _normalise(values)
        correlation[moving] = np.where(
            inside, np.einsum("ns,ns,s->n", brightness, templates.brightness[moving], _WEIGHTS), -1
        )
        shift = np.einsum("nis,ns->ni", templates.descent[moving], templates.brightness[moving] - brightness)
        shift[~inside] = 0
        found[moving] += np.einsum("nij,nj->ni", maps[moving], shift)
        moving = moving[inside & (np.abs(shift).max(axis=1) > _CONVERGED)]
    return found, correlation


def sample(photo: ByteArray, points: FloatArray) -> tuple[BoolArray, FloatArray]:
    """Interpolate a grey photo (H, W) bilinearly at `points` (N, S, 2).

    Returns which of the N patches are wholly inside, and the brightness, (N, S) float32.
    """
    height, width = photo.shape
    x, y = points[..., 0], points[..., 1]
    inside = (x.min(axis=1) >= 0) & (y.min(axis=1) >= 0) & (x.max(axis=1) < width - 1) & (y.max(axis=1) < height - 1)
    x, y = np.where(inside[:, None], x, 0), np.where(inside[:, None], y, 0)
    left, top = x.astype(np.int32), y.astype(np.int32)
    x, y = x - left, y - top
    corner, flat = top * width + left, photo.ravel()
    upper = flat.take(corner).astype(np.float32)
    upper += x * (flat.take(corner + 1) - upper)
    corner += width
    lower = flat.take(corner).astype(np.float32)
    lower += x * (flat.take(corner + 1) - lower)
    return inside, upper + y * (lower - upper)


def _normalise(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Give patches (N, S) weighted mean 0 and variance 1. Returns their standard deviations (N,) too."""
    values = values - (values @ _WEIGHTS)[:, None]
    deviation = np.sqrt((values**2) @ _WEIGHTS)
    return values / np.maximum(deviation, 1e-6)[:, None], deviation
