"""Carry two-view geometries over from one COLMAP database to another, so that no pair is verified twice."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from lgbatch.types import FloatArray, Pair

if TYPE_CHECKING:
    import pycolmap


def copy_two_view_geometries(
    old: "pycolmap.Database", new: "pycolmap.Database", ids: Mapping[str, int], pairs: Iterable[Pair]
) -> None:
    """Copy the geometries of pairs whose matches, their keypoints and cameras are equal in both databases.

    `ids` are the image ids by name in `new`. A geometry depends on nothing else: the random seed is fixed per pair. An
    image may have further keypoints in one of the databases.
    """
    old_ids = {image.name: image.image_id for image in old.read_all_images()}
    equal = {name for name in ids if name in old_ids and _equal_image(old, old_ids[name], new, ids[name])}
    for a, b in pairs:
        if a in equal and b in equal and old.exists_two_view_geometry(old_ids[a], old_ids[b]):
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
