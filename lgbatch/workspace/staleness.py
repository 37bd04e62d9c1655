"""What of a store still fits a run, and what becomes of the rest: `--on-change recompute|refuse|keep`.

What does not fit was made with other settings or by another model, or of a photo or of features that have changed
since. Whatever is asked, matches of features that have changed are never used: `keep` leaves them out.
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
_THREADS = 4  # that read photos for their hashes


@dataclass(frozen=True)
class MatchPlan:
    """What the matches store holds of the pairs that are asked for."""

    missing: list[Pair]
    """To be matched; with `recompute`, what is there of them is to be removed first."""
    matched_pairs: int
    matches: int
    """Of the pairs that fit."""
    failures: tuple[Failure, ...]
    """One that counts the pairs that were left out, if any were."""


def plan_extraction(store: FeatureStore, found: Sequence[ImageRef], on_change: OnChange) -> list[ImageRef]:
    """The photos that the store lacks or, to be recomputed, does not hold as they are now made.

    A photo whose file was touched only is looked at once, and known again by its new time. Raises StoreError when
    something does not fit and is to be refused.
    """
    _refuse_others(store, on_change, "photos were extracted", "keep uses their features as they are")
    missing = [ref for ref in found if ref.name not in store]
    present = [ref for ref in found if ref.name in store]
    otherwise = set(store.others)
    records = {ref.name: store.record(ref.name) for ref in present}
    replaced = _replaced(store, [ref for ref in present if records[ref.name].made not in otherwise], records)
    if replaced and on_change == "refuse":
        raise StoreError(
            f"{store.path}: {_counted(len(replaced), 'photo has', 'photos have')} been replaced under the same name "
            f"since ({min(replaced)}{', ...' * (len(replaced) > 1)}): {_way_out('keep uses their old features')}"
        )
    if on_change == "keep":
        return missing
    again = replaced | {name for name, record in records.items() if record.made in otherwise}
    return [ref for ref in found if ref.name not in records or ref.name in again]


def plan_matching(
    store: MatchStore, pairs: Iterable[Pair], images: Mapping[str, ImageRecord], on_change: OnChange
) -> MatchPlan:
    """Which of the pairs the store lacks or, to be recomputed, does not hold as they would be matched now.

    Raises StoreError when something does not fit and is to be refused.
    """
    _refuse_others(store, on_change, "pairs were matched", "keep uses them as they are")
    otherwise = store.others if on_change == "recompute" else {}
    missing, stale, found = [], [], []
    for pair in pairs:
        record = store.record(pair)
        if record is None or record.made in otherwise:
            missing.append(pair)
        elif _stale(record, images[pair.a].version, images[pair.b].version):
            stale.append(pair)
        else:
            found.append(record.matches)
    if stale and on_change == "refuse":
        raise StoreError(
            f"{store.path}: {_counted(len(stale), 'pair was', 'pairs were')} matched with features that have changed "
            f"since ({' '.join(stale[0])}{', ...' * (len(stale) > 1)}): {_way_out('keep leaves them out')}"
        )
    failures: tuple[Failure, ...] = ()
    if stale and on_change == "keep":
        told = "their features have changed since they were matched: left out; --on-change recompute makes them again"
        failures = (Failure("match", _counted(len(stale), "pair", "pairs"), told),)
    else:
        missing += stale
    return MatchPlan(missing, sum(count > 0 for count in found), sum(found), failures)


def drop_others(store: FeatureStore | MatchStore, on_change: OnChange) -> None:
    """Once all was recomputed that could be: take out what is left of other settings, which fits nothing any more."""
    if on_change == "recompute" and store.others:
        store.remove_made(set(store.others))


def usable_pairs(store: MatchStore, images: Mapping[str, int]) -> list[Pair]:
    """The pairs of these images, given with the versions of their features, whose matches are of those features.

    Pairs of which nobody knows that are taken as they are.
    """
    usable = []
    for pair in store.pairs(list(images)):
        record = store.record(pair)
        if record and not _stale(record, images[pair.a], images[pair.b]):
            usable.append(pair)
    return usable


def _stale(record: PairRecord, *versions: int) -> bool:
    return record.versions not in (versions, (UNKNOWN, UNKNOWN))


def _refuse_others(store: Store, on_change: OnChange, what_happened: str, keep: str) -> None:
    if on_change != "refuse" or not store.others:
        return
    entry = max(store.others.values(), key=lambda entry: int(entry["items"]))
    noun, _, verb = what_happened.partition(" ")
    count = int(entry["items"])
    happened = f"{count} {noun} {verb}" if count != 1 else f"1 {noun[:-1]} {verb.replace('were', 'was')}"
    changes = differences(entry["by"], store.by)
    raise StoreError(f"{store.path}: {happened} with {changes}: {_way_out(keep)}")


def _replaced(store: FeatureStore, refs: Sequence[ImageRef], records: Mapping[str, ImageRecord]) -> set[str]:
    """Names of photos with other bytes than when they were extracted; what is only newer is noted in the store."""

    def look(ref: ImageRef) -> tuple[str, PhotoFile] | None:
        try:
            return ref.name, hash_photo(ref)
        except OSError:  # cannot be read now, so nothing is known of it
            return None

    replaced = set()
    for looked in prefetch(
        look, filter(lambda ref: _touched(ref, records[ref.name]), refs), threads=_THREADS, depth=16
    ):
        if looked:
            name, photo = looked
            before = records[name].photo
            if before and before.digest == photo.digest:
                store.set_photo(name, photo)
            else:
                replaced.add(name)
    return replaced


def _touched(ref: ImageRef, record: ImageRecord) -> bool:
    try:
        return record.photo is not None and file_size_and_time(ref) != record.photo[1:]
    except OSError:
        return False


def _counted(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}"


def _way_out(keep: str) -> str:
    return f"--on-change recompute makes them again, {keep}"
