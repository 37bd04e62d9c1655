"""Two-view geometries of matched pairs: their estimation, the evidence for them, and their form in matches.h5.

LightGlue returns some tens of matches for photos that have nothing in common, or are turned against each other, and
these agree by chance with some two-view geometry: a third of such pairs has the 15 inliers that COLMAP asks for
(docs/reliability.md). A pair therefore needs more inliers the smaller their part of its matches is.

The same rule makes verification fast. RANSAC stops once it would have found a geometry with enough inliers, had there
been one: a pair of 90 matches needs 33 inliers, which takes a hundredth of the trials of COLMAP's 25 percent.
"""

import hashlib
import struct
from collections.abc import Sequence
from math import sqrt
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lgbatch.types import FloatArray, IntArray

if TYPE_CHECKING:
    import pycolmap

MIN_EVIDENCE = 12.0
"""Smallest product of inliers and inlier ratio: 15 of 18 matches, 24 of 48, or 48 of 192."""
_LARGEST_MIN_RATIO = 0.9
_HEAD = struct.Struct("<8sB")
"""Digest of the cameras, and configuration."""
_SWAPPED = 0x80
"""Flag of the configuration: see Unpacked."""
_MATRICES = 27
"""Numbers of E, F and H."""


def has_enough_evidence(inliers: int, matches: int) -> bool:
    """Whether so many inliers of so many matches are evidence that two images show the same scene."""
    return inliers > 0 and inliers**2 >= MIN_EVIDENCE * matches


def verify(
    cameras: Sequence["pycolmap.Camera"], keypoints: Sequence[FloatArray], matches: IntArray
) -> "pycolmap.TwoViewGeometry":
    """Estimate the two-view geometry of a pair. With too little evidence, it is degenerate and has no inliers.

    `keypoints` are those of both images, (N, 2), in COLMAP's pixels: the centre of the top-left pixel is (0.5, 0.5).
    `matches` are (K, 2) rows into them. Deterministic.
    """
    import pycolmap

    options = colmap_options()
    needed = sqrt(MIN_EVIDENCE / max(len(matches), 1))
    options.ransac.min_inlier_ratio = min(max(options.ransac.min_inlier_ratio, needed), _LARGEST_MIN_RATIO)
    geometry = estimate(cameras, keypoints, matches, options)
    if has_enough_evidence(len(geometry.inlier_matches), len(matches)):
        return geometry
    return pycolmap.TwoViewGeometry(config=pycolmap.TwoViewGeometryConfiguration.DEGENERATE)


def estimate(
    cameras: Sequence["pycolmap.Camera"],
    keypoints: Sequence[FloatArray],
    matches: IntArray,
    options: "pycolmap.TwoViewGeometryOptions",
) -> "pycolmap.TwoViewGeometry":
    """Estimate the two-view geometry of a pair as COLMAP does. Arguments are those of `verify`."""
    import pycolmap

    first, second = (np.ascontiguousarray(points[:, :2], np.float64) for points in keypoints)
    return pycolmap.estimate_two_view_geometry(
        cameras[0], first, cameras[1], second, matches.astype(np.uint32), options
    )


def colmap_options() -> "pycolmap.TwoViewGeometryOptions":
    """COLMAP's default options, with a fixed random seed."""
    import pycolmap

    options = pycolmap.TwoViewGeometryOptions()
    options.ransac.random_seed = 0
    return options


def camera_digest(camera: "pycolmap.Camera") -> bytes:
    """A digest of what verification depends on besides the matches: a camera, and the version of COLMAP."""
    import pycolmap

    parts = (pycolmap.__version__, camera.model_name, camera.width, camera.height, camera.has_prior_focal_length)
    return hashlib.blake2b(repr((*parts, [*camera.params])).encode(), digest_size=8).digest()


class Unpacked(NamedTuple):
    """A geometry from matches.h5."""

    geometry: "pycolmap.TwoViewGeometry"
    swapped: bool
    """It is of the second image and the first."""


def pack_geometry(
    geometry: "pycolmap.TwoViewGeometry", matches: IntArray, digests: tuple[bytes, bytes], *, swapped: bool = False
) -> bytes:
    """Pack a geometry for matches.h5: of the pair as it is stored or, if `swapped`, of its second and first image.

    These are a digest of the cameras, the configuration, E, F and H, a bit for each match and, if COLMAP has estimated
    the focal length from the pair, the parameters of both cameras. All arguments are in the order of the geometry.
    """
    head = _HEAD.pack(_pair_digest(digests), int(geometry.config) | _SWAPPED * swapped)
    inliers = geometry.inlier_matches
    if not len(inliers):
        return head
    matrices = [np.full((3, 3), np.nan) if m is None else m for m in (geometry.E, geometry.F, geometry.H)]
    is_inlier = np.isin(matches[:, 0], inliers[:, 0])  # no keypoint is in two matches
    estimated = [camera.params for camera in (geometry.camera1, geometry.camera2) if camera is not None]
    parameters = np.concatenate([np.zeros(0), *estimated]).astype("<f8").tobytes()
    return head + np.array(matrices, "<f8").tobytes() + np.packbits(is_inlier).tobytes() + parameters


def unpack_geometry(
    packed: bytes, matches: IntArray, digests: tuple[bytes, bytes], cameras: Sequence["pycolmap.Camera"]
) -> Unpacked | None:
    """Return the geometry that pack_geometry packed; None if it does not belong to these cameras and matches.

    All arguments are in the stored order of the pair.
    """
    import pycolmap

    swapped = len(packed) >= _HEAD.size and bool(packed[8] & _SWAPPED)
    if swapped:
        matches, digests, cameras = matches[:, ::-1], (digests[1], digests[0]), cameras[::-1]
    if len(packed) < _HEAD.size or packed[:8] != _pair_digest(digests):
        return None
    geometry = pycolmap.TwoViewGeometry(config=pycolmap.TwoViewGeometryConfiguration(packed[8] & ~_SWAPPED))
    if len(packed) == _HEAD.size:
        return Unpacked(geometry, swapped)
    start = _HEAD.size + 8 * _MATRICES
    end = start + -(-len(matches) // 8)
    sizes = [len(camera.params) for camera in cameras]
    if len(packed) not in (end, end + 8 * sum(sizes)):
        return None
    bits = np.unpackbits(np.frombuffer(packed[start:end], np.uint8))
    matrices = np.frombuffer(packed, "<f8", _MATRICES, _HEAD.size).reshape(3, 3, 3)
    geometry.E, geometry.F, geometry.H = (None if np.isnan(m).any() else m for m in matrices)
    geometry.inlier_matches = matches[bits[: len(matches)] > 0].astype(np.uint32)
    if len(packed) > end:
        parameters = np.split(np.frombuffer(packed, "<f8", sum(sizes), end), sizes[:1])
        geometry.camera1, geometry.camera2 = map(_with_parameters, cameras, parameters)
    return Unpacked(geometry, swapped)


def _with_parameters(camera: "pycolmap.Camera", parameters: NDArray[np.float64]) -> "pycolmap.Camera":
    import pycolmap

    changed = pycolmap.Camera(camera.todict())
    changed.params = [*parameters]
    return changed


def _pair_digest(digests: tuple[bytes, bytes]) -> bytes:
    return hashlib.blake2b(b"".join(digests), digest_size=8).digest()
