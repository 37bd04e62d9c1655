"""ALIKED's keypoints and descriptors, from its maps (export/networks/detect.py and aliked.py, DescriptorHead)."""

import ctypes
from collections.abc import Mapping
from ctypes import POINTER, byref, c_float, c_int64, c_size_t, c_void_p

import numpy as np

from lgbatch.kernels.aliked_maps import Keep, Maps
from lgbatch.kernels.library import PANEL, load_function
from lgbatch.kernels.session import Array, address, scratch_address
from lgbatch.types import FloatArray, IntArray

RADIUS = 2
"""Keypoints are local maxima in windows of 5 x 5, at least this many pixels from the edges."""
TEMPERATURE = 0.1
"""Temperature of the softmax that refines a keypoint."""
LEVELS = 3
"""A constant of c/aliked/describe.h. The structs must match it too, field by field."""


class HeadStruct(ctypes.Structure):
    """Weights of the descriptors."""

    _fields_ = (
        ("first", c_void_p),
        ("inside", c_void_p),
        ("inside_bias", c_void_p),
        ("outside", c_void_p),
        ("outside_bias", c_void_p),
        ("feature", c_void_p),
        ("sum", c_void_p),
        ("channels", c_int64),
        ("dim", c_int64),
        ("samples", c_int64),
    )


class LevelsStruct(ctypes.Structure):
    """A photo's maps, and where the photo lies in them."""

    _fields_ = (
        ("first", c_void_p),
        ("levels", c_void_p * LEVELS),
        ("heights", c_int64 * LEVELS),
        ("widths", c_int64 * LEVELS),
        ("row_scale", c_float * LEVELS),
        ("column_scale", c_float * LEVELS),
        ("width_of_first", c_int64),
        ("height", c_int64),
        ("width", c_int64),
        ("top", c_int64),
        ("left", c_int64),
    )


class Detector:
    """Finds keypoints in score maps."""

    def __init__(self) -> None:
        """Raise RuntimeError as library.require_kernels."""
        sizes = c_int64, c_int64
        self._scratch_bytes = load_function("aliked_maxima_scratch_bytes", c_size_t, *sizes)
        self._find = load_function("aliked_maxima", c_int64, c_void_p, c_int64, *sizes, c_float, c_void_p, c_void_p)

    def detect(self, scores: FloatArray, threshold: float, most: int) -> IntArray:
        """Return the keypoints of scores (H, W) in 0..1, each side at least 5: raster indices (K,), best first.

        They are the best `most` of the local maxima above `threshold`, or above the mean score if none is. Of equal
        scores, the first in raster order comes first. The rows of `scores` may be apart.
        """
        height, width = scores.shape
        maxima = np.empty(height * width, np.int32)
        scratch, count = scratch_address(self._scratch_bytes(height, width)), 0
        for bound in (threshold, float(scores.mean())):
            stride = scores.strides[0] // scores.itemsize
            count = self._find(address(scores), stride, height, width, bound, address(maxima), scratch)
            if count:
                break
        found = maxima[:count]
        return found[np.lexsort((found, -scores[found // width, found % width]))[:most]]


def refine(scores: FloatArray, index: IntArray) -> tuple[FloatArray, FloatArray]:
    """Refine keypoints to subpixel positions: the softmax-weighted mean of the positions in a 5 x 5 window.

    scores (H, W) and raster indices (K,) to keypoints (K, 2) in pixels, top-left pixel centre (0, 0), and the
    interpolated scores there (K,).
    """
    height, width = scores.shape
    y, x = index // width, index % width
    step = np.arange(-RADIUS, RADIUS + 1)
    window = scores[y[:, None, None] + step[:, None], x[:, None, None] + step].reshape(-1, len(step) ** 2)
    weight = np.exp((window - window.max(1, keepdims=True)) / np.float32(TEMPERATURE))
    grid = np.stack(np.meshgrid(step, step), -1).reshape(-1, 2).astype(np.float32)
    keypoints = np.stack([x, y], 1).astype(np.float32) + weight @ grid / weight.sum(1, keepdims=True)
    # To -1..1 and back, as published: the descriptors truncate these coordinates, so every bit matters.
    last = np.array([width - 1, height - 1], np.float32)
    unit = keypoints / last * np.float32(2) - np.float32(1)
    keypoints = (unit / np.float32(2) + np.float32(0.5)) * last
    return keypoints, _interpolate(scores, keypoints)


def _interpolate(scores: FloatArray, positions: FloatArray) -> FloatArray:
    """Interpolate scores (H, W) linearly at positions (K, 2): x and y inside of the map."""
    low = np.floor(positions).astype(np.int64)
    across, down = (positions - low).T
    height, width = scores.shape
    left, top = low.T
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    above = scores[top, left] * (1 - across) + scores[top, right] * across
    below = scores[bottom, left] * (1 - across) + scores[bottom, right] * across
    values: FloatArray = above * (1 - down) + below * down
    return values


class Descriptor:
    """Describes keypoints."""

    def __init__(self, arrays: Mapping[str, Array], keep: Keep) -> None:
        """Pack the weights, which have the names of lgbatch.export.networks.aliked.AlikedExtractor.

        `keep` must keep the packed weights as long as this object. Raises KeyError if the weights are incomplete,
        ValueError if they do not fit together, and RuntimeError as library.require_kernels.
        """
        weights = {name.removeprefix("describe."): values for name, values in arrays.items()}
        self.dim = weights["feature"].shape[0]
        samples = weights["sum"].shape[0] // self.dim
        if weights["outside.weight"].shape != (2 * samples, 2 * samples) or 2 * samples > PANEL:
            raise ValueError("the weights of the descriptors do not fit together")
        hidden = np.pad(weights["outside.weight"], [(0, PANEL - 2 * samples), (0, 0)])
        packed = [
            arrays["aggregate.0"],
            *(_panels(weights["inside.weight"]), _padded(weights["inside.bias"])),
            *(_panels(hidden), _padded(weights["outside.bias"])),
            _panels(weights["feature"]),
            np.stack([_panels(part) for part in np.split(weights["sum"], samples)]),
        ]
        addresses = [keep(np.ascontiguousarray(values, np.float32)) for values in packed]
        self._head = HeadStruct(*addresses, len(arrays["aggregate.0"]), self.dim, samples)
        self._scratch_bytes = load_function("aliked_describe_scratch_bytes", c_size_t)
        pointers = POINTER(HeadStruct), POINTER(LevelsStruct), c_void_p
        self._describe = load_function("aliked_describe", None, *pointers, c_int64, c_void_p, c_void_p)

    def describe(self, maps: Maps, keypoints: FloatArray, shape: tuple[int, int]) -> FloatArray:
        """Describe keypoints (K, 2) in pixels of a photo of `shape` (height, width): (K, D) of unit length."""
        keypoints = np.ascontiguousarray(keypoints, np.float32)
        descriptors = np.empty((len(keypoints), self.dim), np.float32)
        levels, scratch = _levels_struct(maps, shape), scratch_address(self._scratch_bytes())
        self._describe(
            byref(self._head), byref(levels), address(keypoints), len(keypoints), address(descriptors), scratch
        )
        return descriptors


def _levels_struct(maps: Maps, shape: tuple[int, int]) -> LevelsStruct:
    full = maps.scores.shape
    sizes = [[level.shape[axis] for level in maps.levels] for axis in (0, 1)]
    scales = [[(size - 1) / (full[axis] - 1) for size in sizes[axis]] for axis in (0, 1)]
    return LevelsStruct(
        address(maps.first),
        (c_void_p * LEVELS)(*map(address, maps.levels)),
        *((c_int64 * LEVELS)(*axis) for axis in sizes),
        *((c_float * LEVELS)(*axis) for axis in scales),
        full[1],
        *shape,
        *maps.corner(shape),
    )


def _panels(weight: Array) -> Array:
    """Rearrange a matrix (in, out) to GEMM panels (ceil(out / PANEL), in, PANEL), padded with zeros."""
    padded = np.pad(weight, [(0, 0), (0, -weight.shape[1] % PANEL)])
    return padded.reshape(len(weight), -1, PANEL).transpose(1, 0, 2)


def _padded(bias: Array) -> Array:
    return np.pad(bias, (0, PANEL - len(bias)))
