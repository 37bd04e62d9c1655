"""Find the stale items of a store and apply `--on-change recompute|refuse|keep` to them.

An item is outdated if it was computed with other settings or another model. It is stale, too, if its photo or its
features have changed since. Matches of changed features are never used: `keep` leaves their pairs out.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lgbatch.errors import StoreError
from lgbatch.photos.file_hash import file_size_and_time, hash_photo
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import MatchStore
from lgbatch.storage.provenance import UNKNOWN, ImageRecord, PairRecord, differences
from lgbatch.storage.store import Store
from lgbatch.types import Failure, ImageRef, Pair, PhotoFile
from lgbatch.workspace.prefetch import prefetch

OnChange = Literal["recompute", "refuse", "keep"]
_THREADS = 4
"""Threads that hash photos."""


@dataclass(frozen=True)
class MatchPlan:
    """The pairs to match, and counts of the pairs that the store already holds."""

    missing: list[Pair]
    """Pairs to match. With `recompute` the store may hold stale items of them, which have to be removed first."""
    matched_pairs: int
    """Number of stored pairs that are valid and have at least one match."""
    matches: int
    """Number of matches of the stored pairs that are valid."""
    failures: tuple[Failure, ...]
    """Empty, or one failure that counts the pairs left out by `keep`."""


def plan_extraction(store: FeatureStore, photos: Sequence[ImageRef], on_change: OnChange) -> list[ImageRef]:
    """Return the photos to extract: those that the store lacks and, with `recompute`, those with stale items.

    A photo whose file has a new size or modification time is hashed. If its content is unchanged, the store records
    the new time. Raises StoreError if there are stale items and `on_change` is "refuse".
    """
    keep_hint = "keep uses their features as they are"
    _refuse_outdated(store, on_change, "photo was extracted", "photos were extracted", keep_hint)
    records = {ref.name: store.record(ref.name) for ref in photos if ref.name in store}
    other_provenance = set(store.outdated)
    outdated = {name for name, record in records.items() if record.fingerprint in other_provenance}
    current = records.keys() - outdated
    replaced = _replaced_photos(store, [ref for ref in photos if ref.name in current], records)
    if replaced and on_change == "refuse":
        raise StoreError(
            f"{store.path}: {_counted(len(replaced), 'photo has', 'photos have')} been replaced under the same name "
            f"since ({min(replaced)}{', ...' * (len(replaced) > 1)}): {_way_out('keep uses their old features')}"
        )
    done = records.keys() if on_change == "keep" else current - replaced
    return [ref for ref in photos if ref.name not in done]


def plan_matching(
    store: MatchStore, pairs: Iterable[Pair], images: Mapping[str, ImageRecord], on_change: OnChange
) -> MatchPlan:
    """Return the pairs to match: those that the store lacks and, with `recompute`, those with stale items.

    Raises StoreError if there are stale items and `on_change` is "refuse".
    """
    _refuse_outdated(store, on_change, "pair was matched", "pairs were matched", "keep uses them as they are")
    outdated = store.outdated if on_change == "recompute" else {}
    missing, stale, match_counts = [], [], []
    for pair in pairs:
        record = store.record(pair)
        if record is None or record.fingerprint in outdated:
            missing.append(pair)
        elif _features_changed(record, images[pair.a].version, images[pair.b].version):
            stale.append(pair)
        else:
            match_counts.append(record.matches)
    if stale and on_change == "refuse":
        raise StoreError(
            f"{store.path}: {_counted(len(stale), 'pair was', 'pairs were')} matched with features that have changed "
            f"since ({' '.join(stale[0])}{', ...' * (len(stale) > 1)}): {_way_out('keep leaves them out')}"
        )
    failures: tuple[Failure, ...] = ()
    if stale and on_change == "keep":
        reason = "left out: the features have changed since they were matched; --on-change recompute matches them again"
        failures = (Failure("match", _counted(len(stale), "pair", "pairs"), reason),)
    else:
        missing += stale
    return MatchPlan(missing, sum(count > 0 for count in match_counts), sum(match_counts), failures)


def drop_outdated(store: FeatureStore | MatchStore, on_change: OnChange) -> None:
    """With `recompute`, remove the outdated items that were not recomputed, such as those of deleted photos."""
    if on_change == "recompute" and store.outdated:
        store.remove_by_fingerprint(set(store.outdated))


def usable_pairs(store: MatchStore, versions: Mapping[str, int]) -> list[Pair]:
    """Return the stored pairs of these images whose matches belong to their present features.

    `versions` maps image names to versions of features. Pairs that do not record versions are usable.
    """
    usable = []
    for pair in store.pairs(list(versions)):
        record = store.record(pair)
        if record and not _features_changed(record, versions[pair.a], versions[pair.b]):
            usable.append(pair)
    return usable


def _features_changed(record: PairRecord, *versions: int) -> bool:
    return record.versions not in (versions, (UNKNOWN, UNKNOWN))


def _refuse_outdated(store: Store, on_change: OnChange, singular: str, plural: str, keep_hint: str) -> None:
    """Raise StoreError if the store has outdated items and `on_change` is "refuse"."""
    if on_change != "refuse" or not store.outdated:
        return
    largest = max(store.outdated.values(), key=lambda entry: int(entry["items"]))
    changes = differences(largest["by"], store.provenance)
    raise StoreError(
        f"{store.path}: {_counted(int(largest['items']), singular, plural)} with {changes}: {_way_out(keep_hint)}"
    )


def _replaced_photos(store: FeatureStore, photos: Sequence[ImageRef], records: Mapping[str, ImageRecord]) -> set[str]:
    """Return the names of photos whose content has changed. If only the time has changed, record the new one."""

    def hash_if_readable(ref: ImageRef) -> tuple[str, PhotoFile] | None:
        try:
            return ref.name, hash_photo(ref)
        except OSError:  # unreadable now: keep its features
            return None

    touched = (ref for ref in photos if _is_touched(ref, records[ref.name]))
    replaced = set()
    for hashed in prefetch(hash_if_readable, touched, threads=_THREADS, depth=16):
        if hashed:
            name, photo = hashed
            recorded = records[name].photo
            if recorded and recorded.digest == photo.digest:
                store.set_photo(name, photo)
            else:
                replaced.add(name)
    return replaced


def _is_touched(ref: ImageRef, record: ImageRecord) -> bool:
    """Whether the file has another size or modification time than recorded."""
    try:
        return record.photo is not None and file_size_and_time(ref) != record.photo[1:]
    except OSError:
        return False


def _counted(count: int, singular: str, plural: str) -> str:
    return f"{count} {singular if count == 1 else plural}"


def _way_out(keep_hint: str) -> str:
    return f"--on-change recompute computes them again, {keep_hint}"
