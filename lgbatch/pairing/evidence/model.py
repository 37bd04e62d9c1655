"""Pairs of images from a COLMAP model: those that share most points or, without points, have similar views."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lgbatch.errors import InputError
from lgbatch.pairing.evidence.lists import Ranked, Source
from lgbatch.pairing.spatial import nearest
from lgbatch.types import LongArray

if TYPE_CHECKING:
    import pycolmap

_MAX_ANGLE = 45
"""Degrees between the viewing directions of two images with similar views."""
_NEAREST = 4
"""The nearest cameras of which similar views are chosen, as a multiple of the number that is wanted."""


def model_pairs(folder: Path, names: Sequence[str], count: int) -> Ranked:
    """Rank up to `count` others for each image that the model has: by common points, or nearest cameras first.

    Raises InputError if there is no model, or if it has none of the images.
    """
    model = read_model(folder)
    rows = {name: row for row, name in enumerate(names)}
    posed = {image.name: image for image in model.images.values() if image.has_pose}
    images = [posed[name] for name in names if name in posed]
    if not images:
        raise InputError(f"the model in {folder} has no pose of an image: give a model with the same image names")
    found = np.array([rows[image.name] for image in images], np.int64)
    others = _most_common_points(images, count) if model.num_points3D() else _similar_views(images, count)
    return Ranked.from_table(Source.MODEL, found, np.where(others >= 0, found[others], -1))


def read_model(folder: Path) -> "pycolmap.Reconstruction":
    """Read a COLMAP model. Raises InputError if there is none."""
    import pycolmap

    try:
        return pycolmap.Reconstruction(str(folder))
    except (OSError, ValueError, RuntimeError, IndexError, MemoryError):
        raise InputError(f"no COLMAP model in {folder}: give the folder with cameras.bin, such as sparse/0") from None


def _most_common_points(images: Sequence["pycolmap.Image"], count: int) -> LongArray:
    """Rows of the images that share most points with each, (N, count), best first; -1 if there are fewer."""
    seen = [np.unique([p.point3D_id for p in image.get_observation_points2D()]).astype(np.uint64) for image in images]
    points = np.unique(np.concatenate(seen), return_inverse=True)[1]
    image_of = np.repeat(np.arange(len(images)), [len(ids) for ids in seen])
    by_point = image_of[np.argsort(points, kind="stable")]
    ends = np.cumsum(np.bincount(points))
    best = np.full((len(images), count), -1, np.int64)
    for row, own in enumerate(np.split(points, np.cumsum([len(ids) for ids in seen])[:-1])):
        shared = np.bincount(by_point[_ranges(np.append(0, ends)[own], ends[own])], minlength=len(images))
        shared[row] = 0
        order = np.argsort(-shared, kind="stable")[:count]
        order = order[shared[order] > 0]
        best[row, : len(order)] = order
    return best


def _ranges(starts: LongArray, ends: LongArray) -> LongArray:
    """Return the numbers of ranges, one range after the other."""
    lengths = ends - starts
    numbers: LongArray = np.arange(lengths.sum()) + np.repeat(starts - np.cumsum(lengths) + lengths, lengths)
    return numbers


def _similar_views(images: Sequence["pycolmap.Image"], count: int) -> LongArray:
    """Rows of the nearest images that look in a similar direction, (N, K), nearest first; -1 if there are fewer."""
    centres: NDArray[np.float64] = np.array([image.projection_center() for image in images])
    directions: NDArray[np.float64] = np.array([image.viewing_direction() for image in images])
    others = nearest(centres, min(_NEAREST * count, len(images) - 1)) if len(images) > 1 else np.zeros((1, 0), np.int64)
    similar = np.einsum("nc,nkc->nk", directions, directions[others]) >= np.cos(np.radians(_MAX_ANGLE))
    order = np.argsort(~similar, axis=1, kind="stable")[:, :count]
    return np.where(np.take_along_axis(similar, order, 1), np.take_along_axis(others, order, 1), -1)
