"""Remove images and their pairs from the stores: those that the user names, or those that have left the folder."""

from collections.abc import Sequence
from pathlib import Path

from lgbatch.errors import InputError
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import MatchStore


def remove_images(features_path: Path, matches_path: Path, names: Sequence[str]) -> tuple[int, int]:
    """Remove images from features.h5 and their pairs from matches.h5, if there is one.

    Returns the numbers of images and pairs that were removed. Raises InputError, and removes nothing, if features.h5
    does not have all of the images, and StoreError if a store cannot be written.
    """
    removed = set(names)
    with FeatureStore(features_path) as features:
        stored = features.names()
    if unknown := sorted(removed - set(stored)):
        more = ", ..." * (len(unknown) > 1)
        raise InputError(f"{features_path} has no image {unknown[0]}{more}: give paths below the photo folder")
    with FeatureStore(features_path, append={}) as features:
        pairs = _remove_pairs(matches_path, stored, removed)
        for name in removed:
            features.remove(name)
    return len(removed), pairs


def remove_absent(path: Path) -> int:
    """Remove from features.h5 the images without a photo, or from matches.h5 the pairs without features.

    Returns the number of items that were removed. Removes nothing if it cannot be known: the store is not lgbatch's,
    its folder of photos is missing or has none of its images, or there is no features.h5 beside matches.h5. Raises
    StoreError if a store cannot be read or written.
    """
    with FeatureStore(path) as store:
        kind, folder = store.stored_kind, store.image_folder
        names = store.names() if kind == "features" else []
    if kind == "matches":
        return _remove_absent_pairs(path)
    present = {name for name in names if folder and (folder / name).is_file()}
    if not present or len(present) == len(names):
        return 0
    with FeatureStore(path, append={}) as store:
        for name in set(names) - present:
            store.remove(name)
    return len(names) - len(present)


def _remove_absent_pairs(path: Path) -> int:
    features_path = path.with_name("features.h5")
    if not features_path.exists():
        return 0
    with FeatureStore(features_path) as features:
        names = features.names()
    with MatchStore(path) as matches:
        known, count = matches.pairs(names), sum(1 for _ in matches.groups())
    if not known or len(known) == count:
        return 0
    with MatchStore(path, append={}) as matches:
        matches.keep_only(names)
    return count - len(known)


def _remove_pairs(path: Path, stored: Sequence[str], removed: set[str]) -> int:
    if not path.exists():
        return 0
    with MatchStore(path, append={}) as matches:
        pairs = [pair for pair in matches.pairs(stored) if not removed.isdisjoint(pair)]
        for pair in pairs:
            matches.remove(pair)
    return len(pairs)
