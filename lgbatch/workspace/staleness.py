"""Find the stale items of a store and apply `--on-change recompute|refuse|keep` to them.

An item is outdated if it was computed with other settings or another model. It is stale, too, if its photo, the
orientation of its photo or its features have changed since. Matches of changed features are never used: `keep` leaves
their pairs out.

A stale item stays in the store until its successor is written, so a recomputation that fails loses nothing. The items
of images and pairs that failed are not used: the ledger lists them.
"""

from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from lgbatch.errors import StoreError
from lgbatch.photos.coordinates import is_mirrored
from lgbatch.photos.file_hash import file_size_and_time, hash_photo
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import MatchStore
from lgbatch.storage.provenance import UNKNOWN, ImageRecord, PairRecord, differences
from lgbatch.storage.store import Store
from lgbatch.types import BoolArray, ByteArray, Failure, ImageRef, Pair, PairList, PhotoFile, counted
from lgbatch.workspace.prefetch import prefetch

OnChange = Literal["recompute", "refuse", "keep"]
_THREADS = 4
"""Threads that hash photos."""
_VALID, _FAILED, _STALE, _MISSING = range(4)
"""States of pairs: stored; failed before; matched with features that have changed; to match."""


@dataclass(frozen=True)
class MatchPlan:
    """The pairs to match, and counts of the pairs that the store already holds."""

    missing: PairList
    """Pairs to match. With `recompute` the store may hold stale items of them, which their new items replace."""
    failed_pairs: int
    """Number of pairs that are not matched because they failed before."""
    matched_pairs: int
    """Number of stored pairs that are valid and have at least one match."""
    matches: int
    """Number of matches of the stored pairs that are valid."""
    failures: tuple[Failure, ...]
    """Empty, or one failure that counts the pairs left out by `keep`."""


def plan_extraction(
    store: FeatureStore,
    photos: Sequence[ImageRef],
    on_change: OnChange,
    has_failed: Callable[[ImageRef], bool] = lambda _: False,
) -> list[ImageRef]:
    """Return the photos to extract: those that the store lacks and, with `recompute`, those with stale items.

    Photos that failed before are left out: `has_failed` tells so of photos without valid items. An item is stale if
    its orientation is not that of the ImageRef. `keep` does not keep items of mirrored photos that are not as the
    ImageRef says: the database has the keypoints of all such photos mirrored back, or of none. A photo whose file has
    a new size or modification time is hashed. If its content is unchanged, the store records the new time. Raises
    StoreError if there are stale items of other photos and `on_change` is "refuse".
    """
    records = {ref.name: store.record(ref.name) for ref in photos if ref.name in store}
    other_provenance = set(store.outdated)
    outdated = {name for name, record in records.items() if record.fingerprint in other_provenance}
    if on_change == "refuse":
        failed = [ref.name for ref in photos if ref.name in outdated and has_failed(ref)]
        keep_hint = "keep uses their features as they are"
        fingerprints = [records[name].fingerprint for name in failed]
        _refuse_outdated(store, fingerprints, "photo was extracted", "photos were extracted", keep_hint)
    current = records.keys() - outdated
    changed = _replaced_photos(store, [ref for ref in photos if ref.name in current], records)
    replaced = {ref.name for ref in changed}
    if on_change == "refuse" and not all(map(has_failed, changed)):
        raise StoreError(
            f"{store.path}: {counted(len(replaced), 'photo has', 'photos have')} been replaced under the same name "
            f"since, or got another mask ({min(replaced)}{', ...' * (len(replaced) > 1)}): "
            f"{_way_out('keep uses their old features')}"
        )
    turned = [
        ref for ref in photos if ref.name in current - replaced and store.orientation(ref.name) != ref.orientation
    ]
    if on_change == "refuse" and not all(map(has_failed, turned)):
        _refuse_turned(store, turned)
    done = current - replaced - {ref.name for ref in turned}
    if on_change == "keep":
        done = {ref.name for ref in photos if ref.name in records and not _is_mirrored_otherwise(store, ref)}
    return [ref for ref in photos if ref.name not in done and not has_failed(ref)]


def plan_matching(
    store: MatchStore,
    pairs: Iterable[Pair],
    images: Mapping[str, ImageRecord],
    on_change: OnChange,
    has_failed: Callable[[Pair], bool] = lambda _: False,
) -> MatchPlan:
    """Return the pairs to match: those that the store lacks and, with `recompute`, those with stale items.

    Pairs that failed before are left out: `has_failed` tells so of pairs without valid items. Raises StoreError if
    there are stale items of other pairs and `on_change` is "refuse".
    """
    pairs = PairList.of(pairs)
    found = _survey(store, pairs, images, on_change, has_failed)
    if on_change == "refuse":
        failed = found.failed.elements()
        _refuse_outdated(store, failed, "pair was matched", "pairs were matched", "keep uses them as they are")
    missing, stale = (pairs.where(found.states == state) for state in (_MISSING, _STALE))
    if stale and on_change == "refuse":
        raise StoreError(
            f"{store.path}: {counted(len(stale), 'pair was', 'pairs were')} matched with features that have changed "
            f"since ({' '.join(stale[0])}{', ...' * (len(stale) > 1)}): {_way_out('keep leaves them out')}"
        )
    failures: tuple[Failure, ...] = ()
    if stale and on_change == "keep":
        reason = "left out: the features have changed since they were matched; --on-change recompute matches them again"
        failures = (Failure("match", counted(len(stale), "pair", "pairs"), reason),)
    elif stale:
        missing = PairList(pairs.names, np.concatenate([missing.ids, stale.ids]))
    return MatchPlan(missing, found.failed.total(), found.matched_pairs, found.matches, failures)


def drop_outdated(store: FeatureStore | MatchStore, on_change: OnChange, failed: Set[str] = frozenset()) -> None:
    """With `recompute`, remove the outdated items that were not recomputed, such as those of deleted photos.

    The items of the images and pairs ('a b') that `failed` stay.
    """
    if on_change == "recompute" and store.outdated:
        store.remove_by_fingerprint(set(store.outdated), failed)


def usable_pairs(store: MatchStore, pairs: Iterable[Pair], versions: Mapping[str, int]) -> PairList:
    """Return those of the pairs that are stored, and whose matches belong to the present features of their images.

    `versions` maps image names to versions of features. Pairs of other images are left out. Pairs that do not record
    versions are usable.
    """
    pairs = PairList.of(pairs)
    return pairs.where(are_usable(store, pairs, versions))


def are_usable(
    store: MatchStore, pairs: PairList, versions: Mapping[str, int], outdated: Container[int] = ()
) -> BoolArray:
    """Return which of the pairs are usable as in `usable_pairs`, (P,), and do not have one of these fingerprints."""

    def is_usable(pair: Pair) -> bool:
        if pair.a not in versions or pair.b not in versions or (record := store.record(pair)) is None:
            return False
        return record.fingerprint not in outdated and not _features_changed(record, versions[pair.a], versions[pair.b])

    return np.fromiter(map(is_usable, pairs), np.bool_, len(pairs))


class _Survey(NamedTuple):
    """What a store has of P pairs."""

    states: ByteArray
    """(P,) uint8, _VALID to _MISSING."""
    failed: Counter[int]
    """Failed pairs by the fingerprints of their items, UNKNOWN without an item."""
    matched_pairs: int
    """Valid pairs with at least one match."""
    matches: int
    """Matches of the valid pairs."""


def _survey(
    store: MatchStore,
    pairs: PairList,
    images: Mapping[str, ImageRecord],
    on_change: OnChange,
    has_failed: Callable[[Pair], bool],
) -> _Survey:
    outdated = {} if on_change == "keep" else store.outdated
    states, failed, matched_pairs, matches = bytearray(), Counter[int](), 0, 0
    for pair in pairs:
        record = store.record(pair)
        changed = record and _features_changed(record, images[pair.a].version, images[pair.b].version)
        if record and record.fingerprint not in outdated and not changed:
            states.append(_VALID)
            matched_pairs += record.matches > 0
            matches += record.matches
        elif not (record and on_change == "keep") and has_failed(pair):
            states.append(_FAILED)
            failed[record.fingerprint if record else UNKNOWN] += 1
        else:
            states.append(_STALE if record and record.fingerprint not in outdated else _MISSING)
    return _Survey(np.asarray(states), failed, matched_pairs, matches)


def _features_changed(record: PairRecord, *versions: int) -> bool:
    return record.versions not in (versions, (UNKNOWN, UNKNOWN))


def _refuse_outdated(store: Store, failed: Iterable[int], singular: str, plural: str, keep_hint: str) -> None:
    """Raise StoreError if the store has outdated items besides those that failed, given by their fingerprints."""
    outdated = store.outdated
    counts = Counter({key: int(entry["items"]) for key, entry in outdated.items()})
    counts.subtract(key for key in failed if key in outdated)
    ((largest, items),) = counts.most_common(1) or [(0, 0)]
    if items <= 0:
        return
    made_by = outdated[largest]["by"]
    way_out, before = _way_out(keep_hint), made_by.get("extractor")
    if before != store.provenance.get("extractor"):
        way_out = f"--extractor {before} uses them, --on-change recompute computes them again"
    changes = differences(made_by, store.provenance)
    raise StoreError(f"{store.path}: {counted(items, singular, plural)} with {changes}: {way_out}")


def _refuse_turned(store: FeatureStore, photos: Sequence[ImageRef]) -> None:
    """Raise StoreError about items of photos that are turned otherwise now."""
    example = photos[0]
    raise StoreError(
        f"{store.path}: {counted(len(photos), 'photo was', 'photos were')} extracted with another orientation than "
        f"--rotation gives now ({example.name}: EXIF code {store.orientation(example.name)}, now "
        f"{example.orientation}): {_way_out('keep uses their features as they are')}"
    )


def _is_mirrored_otherwise(store: FeatureStore, photo: ImageRef) -> bool:
    return is_mirrored(store.orientation(photo.name)) != is_mirrored(photo.orientation)


def _replaced_photos(
    store: FeatureStore, photos: Sequence[ImageRef], records: Mapping[str, ImageRecord]
) -> list[ImageRef]:
    """Return the photos whose content has changed. If only the time has changed, record the new one."""

    def hash_if_readable(ref: ImageRef) -> tuple[ImageRef, PhotoFile] | None:
        try:
            return ref, hash_photo(ref)
        except OSError:  # unreadable now: keep its features
            return None

    touched = (ref for ref in photos if _is_touched(ref, records[ref.name]))
    replaced = []
    for hashed in prefetch(hash_if_readable, touched, threads=_THREADS, depth=16):
        if hashed:
            ref, photo = hashed
            recorded = records[ref.name].photo
            if recorded and recorded.digest == photo.digest:
                store.set_photo(ref.name, photo)
            else:
                replaced.append(ref)
    return replaced


def _is_touched(ref: ImageRef, record: ImageRecord) -> bool:
    """Whether the file has another size or modification time than recorded."""
    try:
        return record.photo is not None and file_size_and_time(ref) != record.photo[1:]
    except OSError:
        return False


def _way_out(keep_hint: str) -> str:
    return f"--on-change recompute computes them again, {keep_hint}"
