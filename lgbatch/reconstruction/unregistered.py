"""Why images are not registered, by the figures of the COLMAP database and of the models."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lgbatch.config import Settings
from lgbatch.photos.masks import hidden_part
from lgbatch.reconstruction.results import Cause, Unregistered
from lgbatch.types import LongArray, counted, escape
from lgbatch.workspace.ledger import Ledger

if TYPE_CHECKING:
    import pycolmap

_FEW_KEYPOINTS = 100  # COLMAP registers an image by at least 30 of them
_MOSTLY_HIDDEN = 0.5  # part of a photo behind its mask that explains why it has few keypoints
_FEW_PAIRS = 4
"""An image of a model with fewer verified pairs is weakly joined to it. Measured on a drone survey of 64 photos in
strips: the second try of 22 photos, 8 of them weakly joined, brings 54 further verified pairs; 39 without those 8."""
_PAIR_ID_BASE = 2**31 - 1  # COLMAP: pair id = base * smaller image id + larger image id


@dataclass(frozen=True)
class _Links:
    """The pairs of each image that have matches, or verified ones. Arrays by position of the image."""

    pairs: LongArray
    """Number of pairs."""
    most: LongArray
    """Largest number of matches of a pair."""
    in_model: LongArray
    """Number of pairs whose other image is registered."""


class PairCounts(Protocol):
    """What of a database tells why images are not registered: pycolmap.Database, or a view of one."""

    def read_all_images(self) -> Sequence[Any]:
        """Return the images, which have an `image_id` and a `name`."""

    def read_num_matches(self) -> tuple[Sequence[int], Sequence[int]]:
        """Return the ids of the pairs with matches, and their numbers of matches."""

    def read_two_view_geometry_num_inliers(self) -> tuple[Sequence[int], Sequence[int]]:
        """Return the ids of the pairs with a two-view geometry, and their numbers of inlier matches."""


def find_unregistered(
    db: PairCounts,
    keypoints: Mapping[int, int],
    models: Sequence[Iterable[int]],
    image_folder: Path,
    settings: Settings,
) -> tuple[Unregistered, ...]:
    """Return the images of the database that are not in models[0], in the order of their ids, each with its cause.

    `keypoints` is the number of keypoints by image id; `models` are the ids of the registered images, largest first.
    The masks are those of the settings.
    """
    ids = np.array(sorted(keypoints), np.int64)
    registered = np.isin(ids, np.array(list(models[0] if models else ()), np.int64))
    if registered.all():
        return ()
    names = {image.image_id: image.name for image in db.read_all_images()}
    matched = _links(*db.read_num_matches(), ids, registered)
    verified = _links(*db.read_two_view_geometry_num_inliers(), ids, registered)
    alone = sum(count > 0 for count in keypoints.values()) < 2
    other = {image_id: number for number in reversed(range(1, len(models))) for image_id in models[number]}
    found = []
    for i in map(int, np.flatnonzero(~registered)):
        image_id = int(ids[i])
        if image_id in other:
            cause, reason = _other_model(other[image_id])
        elif keypoints[image_id] < _FEW_KEYPOINTS:
            hidden = hidden_part(image_folder, names[image_id], settings.masks, settings.camera_mask)
            cause, reason = _few_keypoints(keypoints[image_id], hidden)
        elif alone:
            cause, reason = "no other image", "a model needs two photos with keypoints"
        else:
            cause, reason = _cause(keypoints[image_id], matched, verified, i, bool(models))
        found.append(Unregistered(names[image_id], cause, reason))
    return tuple(found)


def weakly_joined(db: "pycolmap.Database", models: Iterable[Iterable[int]]) -> tuple[str, ...]:
    """Return the images of the models, given by their ids, that have few verified pairs."""
    pairs = Counter[int]()
    for pair_id, inliers in zip(*db.read_two_view_geometry_num_inliers(), strict=True):
        pairs.update(divmod(pair_id, _PAIR_ID_BASE) if inliers else ())
    weak = {image_id for model in models for image_id in model if pairs[image_id] < _FEW_PAIRS}
    return tuple(db.read_image(image_id).name for image_id in sorted(weak))


def failed_photos(workspace: Path, photos: Path) -> tuple[Unregistered, ...]:
    """Return the photos that failed in extraction, or whose features cannot be matched, from the ledger of failures."""
    failed = []
    for entry in Ledger(workspace).entries():
        is_photo = entry.stage in ("crawl", "extract") and not entry.name.endswith("/")  # not a folder
        if is_photo or (entry.stage == "match" and _is_file(photos / entry.name)):
            failed.append(Unregistered(escape(entry.name), "failed", f"failed ({entry.stage}): {entry.reason}"))
    return tuple(failed)


def explain(photos: Iterable[Unregistered], unpaired: Collection[str], pairs_file: str) -> tuple[Unregistered, ...]:
    """Give the images without matches that are in no pair of the pairs file that cause."""
    names, reason = frozenset(unpaired), f"in no pair of {pairs_file}"
    return tuple(
        replace(photo, cause="no pair", reason=reason)
        if photo.name in names and photo.cause in ("no matches", "few keypoints")
        else photo
        for photo in photos
    )


def _is_file(path: Path) -> bool:
    """Whether a path is a file. The names of a failed pair together can be too long for a path."""
    try:
        return path.is_file()
    except OSError:
        return False


def _links(pair_ids: Sequence[int], counts: Sequence[int], ids: LongArray, registered: NDArray[np.bool_]) -> _Links:
    """Count the pairs of each image. `pair_ids` are COLMAP's, `counts` their numbers of matches."""
    keys, matches = np.asarray(pair_ids, np.int64), np.asarray(counts, np.int64)
    keys, matches = keys[matches > 0], matches[matches > 0]
    first, second = (np.searchsorted(ids, part) for part in (keys // _PAIR_ID_BASE, keys % _PAIR_ID_BASE))
    ends, others = np.concatenate([first, second]), np.concatenate([second, first])
    most = np.zeros(len(ids), np.int64)
    np.maximum.at(most, ends, np.concatenate([matches, matches]))
    pairs, in_model = np.bincount(ends, minlength=len(ids)), np.bincount(ends[registered[others]], minlength=len(ids))
    return _Links(pairs, most, in_model)


def _other_model(number: int) -> tuple[Cause, str]:
    return "other model", f"in a smaller model, sparse/{number}"


def _few_keypoints(keypoints: int, hidden: float) -> tuple[Cause, str]:
    """The cause of an image with few keypoints, of which masks hide the part `hidden`."""
    if hidden < _MOSTLY_HIDDEN:
        return "few keypoints", f"few keypoints: {keypoints}"
    return "masked", f"few keypoints: {keypoints}, since its mask hides {hidden:.0%} of it"


def _cause(keypoints: int, matched: _Links, verified: _Links, i: int, has_model: bool) -> tuple[Cause, str]:
    """The cause of one image in no model, at position `i`, and its words."""
    if not matched.pairs[i]:
        return "no matches", f"no pair with matches, although it has {counted(keypoints, 'keypoint')}"
    if not verified.pairs[i]:
        pairs = f"{counted(matched.pairs[i], 'pair')} with up to {counted(matched.most[i], 'match', 'matches')}"
        return "not verified", f"{pairs}, but none has enough that are consistent with one two-view geometry"
    pairs = f"{counted(verified.pairs[i], 'verified pair')} with up to {counted(verified.most[i], 'match', 'matches')}"
    if not has_model:
        return "too few 3D points", f"{pairs}, but there is no model"
    if not verified.in_model[i]:
        return "too few 3D points", f"{pairs}, but none with an image of the model"
    return "too few 3D points", f"{pairs}, but too few 3D points of the model"
