"""Whether a model rests on enough evidence.

A pair needs enough evidence to be verified (colmap/two_view.py). Some wrong pairs have it. A model therefore has to
confirm enough matches of the pairs that join its parts: wrong pairs contradict each other, so it confirms few of
theirs.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pycolmap

from lgbatch.types import LongArray

_MIN_CONFIRMED = 50
"""Smallest number of matches of a pair, confirmed by the model, that place one image safely against the other."""
_NO_POINT = np.int64(-1)


def doubtful_parts(model: pycolmap.Reconstruction, database: Path) -> list[tuple[list[str], int]]:
    """Find the parts of a model that too few matches join to its largest part.

    A part is a set of images that verified pairs with enough confirmed matches connect; the images of one frame of a
    rig are connected, too. The model confirms a match if both keypoints observe the same 3D point. Returns the names of
    the images of each part but the largest, and the largest number of confirmed matches of a pair that joins the part.
    """
    frames = {image_id: model.image(image_id).frame_id for image_id in model.reg_image_ids()}
    links = [(frames[pair.a], frames[pair.b], pair.confirmed) for pair in confirmed_matches(model, database)]
    parts = _Parts(frames.values())
    for a, b, confirmed in links:
        if confirmed >= _MIN_CONFIRMED:
            parts.join(a, b)
    most: Counter[int] = Counter()
    for a, b, confirmed in links:
        if parts.of(a) != parts.of(b):
            most |= Counter({parts.of(a): confirmed, parts.of(b): confirmed})  # the maximum of each
    names: dict[int, list[str]] = {}
    for image_id, frame in frames.items():
        names.setdefault(parts.of(frame), []).append(model.image(image_id).name)
    smaller = sorted(names, key=lambda part: -len(names[part]))[1:]
    return [(sorted(names[part]), most[part]) for part in smaller]


class Confirmed(NamedTuple):
    """A verified pair of images of a model."""

    a: int
    b: int
    """Image ids."""
    matches: int
    """Verified matches."""
    confirmed: int
    """Those whose keypoints observe the same 3D point."""


def confirmed_matches(model: pycolmap.Reconstruction, database: Path) -> Iterator[Confirmed]:
    """Count for each verified pair of a model the matches that the model confirms."""
    points = {i: _point_ids(model.image(i)) for i in model.reg_image_ids()}
    with pycolmap.Database.open(database) as db:
        for pair in db.read_two_view_geometry_num_inliers()[0]:
            a, b = pycolmap.pair_id_to_image_pair(pair)
            if a in points and b in points:
                matches = db.read_two_view_geometry(a, b).inlier_matches
                first, second = points[a][matches[:, 0]], points[b][matches[:, 1]]
                confirmed = np.count_nonzero((first == second) & (first != _NO_POINT))
                yield Confirmed(a, b, len(matches), int(confirmed))


def _point_ids(image: pycolmap.Image) -> LongArray:
    """The ids of the 3D points that the keypoints of an image observe, or _NO_POINT, (number of keypoints,)."""
    ids = np.full(image.num_points2D(), _NO_POINT)
    observing = image.get_observation_point2D_idxs()
    ids[observing] = [image.point2D(i).point3D_id for i in observing]
    return ids


class _Parts:
    """Disjoint sets of items, joined step by step."""

    def __init__(self, items: Iterable[int]) -> None:
        self._parent = {item: item for item in items}

    def of(self, item: int) -> int:
        """The item that stands for the part of `item`."""
        while self._parent[item] != item:
            self._parent[item] = item = self._parent[self._parent[item]]
        return item

    def join(self, a: int, b: int) -> None:
        """Make one part of the parts of two items."""
        self._parent[self.of(a)] = self.of(b)
