"""Two-view geometries of a COLMAP database: verified in threads, or carried over so that no pair is verified twice."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from lgbatch.colmap.two_view import colmap_options, estimate, verify
from lgbatch.types import FloatArray, IntArray, LongArray, Pair
from lgbatch.workspace.prefetch import prefetch

if TYPE_CHECKING:
    import pycolmap

_CACHED_IMAGES = 1024
"""Images whose keypoints are in memory: 16 kB each with 2048."""
_AHEAD = 16
"""Pairs per thread that are read ahead."""


def verify_pairs(db: "pycolmap.Database", *, threads: int, strict: bool, stopped: Callable[[], bool]) -> None:
    """Estimate the two-view geometries that the matched pairs of a database lack, and write them.

    With `strict`, pairs with too little evidence become degenerate (two_view.verify). Otherwise the result is that of
    COLMAP's own verification. Ends early if `stopped` returns True. The result does not depend on the number of
    threads.
    """
    import pycolmap

    cameras = {camera.camera_id: camera for camera in db.read_all_cameras()}
    camera_of = {image.image_id: cameras[image.camera_id] for image in db.read_all_images()}

    @lru_cache(_CACHED_IMAGES)
    def keypoints(image_id: int) -> FloatArray:
        return np.asarray(db.read_keypoints(image_id)[:, :2], np.float64)

    def unverified() -> Iterator[tuple[int, int, IntArray, list[FloatArray]]]:
        pair_ids: LongArray = np.sort(db.read_num_matches()[0])
        for a, b in map(pycolmap.pair_id_to_image_pair, pair_ids):
            if stopped():
                return
            if not db.exists_two_view_geometry(a, b):
                yield a, b, db.read_matches(a, b).astype(np.int32), [keypoints(a), keypoints(b)]

    def work(pair: tuple[int, int, IntArray, list[FloatArray]]) -> tuple[int, int, "pycolmap.TwoViewGeometry"]:
        a, b, matches, points = pair
        of_pair = camera_of[a], camera_of[b]
        found = verify(of_pair, points, matches) if strict else estimate(of_pair, points, matches, colmap_options())
        return a, b, found

    for a, b, geometry in prefetch(work, unverified(), threads=threads, depth=_AHEAD * threads):
        db.write_two_view_geometry(a, b, geometry)


def copy_two_view_geometries(
    old: "pycolmap.Database", new: "pycolmap.Database", ids: Mapping[str, int], pairs: Iterable[Pair]
) -> None:
    """Copy the geometries of pairs whose matches, their keypoints and cameras are equal in both databases.

    `ids` are the image ids by name in `new`. A geometry depends on nothing else: the random seed is fixed per pair. An
    image may have further keypoints in one of the databases. Geometries that `new` has already stay.
    """
    old_ids = {image.name: image.image_id for image in old.read_all_images()}
    equal = {name for name in ids if name in old_ids and _equal_image(old, old_ids[name], new, ids[name])}
    for a, b in pairs:
        is_missing = a in equal and b in equal and not new.exists_two_view_geometry(ids[a], ids[b])
        if is_missing and old.exists_two_view_geometry(old_ids[a], old_ids[b]):
            matches = old.read_matches(old_ids[a], old_ids[b]), new.read_matches(ids[a], ids[b])
            if np.array_equal(*matches):
                new.write_two_view_geometry(ids[a], ids[b], old.read_two_view_geometry(old_ids[a], old_ids[b]))


def _equal_image(old: "pycolmap.Database", old_id: int, new: "pycolmap.Database", new_id: int) -> bool:
    """Whether an image has the same camera in both databases, and the keypoints of one start with those of the other.

    Equal matches refer to keypoints that both have.
    """
    first, second = (
        db.read_camera(db.read_image(image_id).camera_id) for db, image_id in ((old, old_id), (new, new_id))
    )
    return (
        (first.model, first.width, first.height, first.has_prior_focal_length)
        == (second.model, second.width, second.height, second.has_prior_focal_length)
        and np.array_equal(first.params, second.params)
        and old.exists_keypoints(old_id)
        and _same_start(old.read_keypoints(old_id), new.read_keypoints(new_id))
    )


def _same_start(first: FloatArray, second: FloatArray) -> bool:
    common = min(len(first), len(second))
    return np.array_equal(first[:common], second[:common])
