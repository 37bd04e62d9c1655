"""Join shards into one store, by copying their items or by linking to them.

A shard is a features.h5 or matches.h5 that lgbatch has finished, and that is never changed again.
"""

import filecmp
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lgbatch.errors import InputError, StoreError
from lgbatch.storage.commit_journal import journal_path
from lgbatch.storage.durable import sync_folder
from lgbatch.storage.joining.joined_store import Item, JoinedStore, LinkedStore
from lgbatch.storage.joining.shard import open_shard
from lgbatch.storage.matches import MatchStore, twins_of
from lgbatch.storage.store import Store

_COMMIT_SECONDS = 5


@dataclass(frozen=True)
class Joined:
    """Result of joining shards."""

    path: Path
    """The joined store."""
    items: int
    """Number of images or pairs of the joined store."""
    points: int
    """Number of their keypoints or matches."""
    added: int
    """Number of items that this call added to the store; with links, all of them if the file was written."""
    replaced: int
    """Number of items that this call replaced by those of `replacing`."""


def join(
    target: Path,
    shards: Sequence[Path],
    *,
    replacing: Sequence[Path] = (),
    links: bool = False,
    names: Iterable[str] = (),
    on_shard: Callable[[], None] = lambda: None,
) -> Joined:
    """Join shards of one kind, features or matches, into the store `target`. Joined again, nothing changes.

    The items are those of `shards`, in this order, and then of `replacing` (shards of a retry), which replace items of
    the same name. An item that two of the other shards have is joined once if its records are equal, and an error
    otherwise.

    By default the items are copied into an ordinary store, created if it is missing, and commits are made every few
    seconds: killed, the next call goes on. With `links`, the store is a small file of external links, by relative
    paths, which is written anew and replaced atomically. It can be read as any store, but not changed.

    `names` are the names of all images of the set, for matches only: images such as a/b.jpg and a-b.jpg must be kept
    apart in each shard (see matches.py), by calling MatchStore.separate_twins with all of them before its first pair.
    `on_shard` is called after each shard.

    Raises InputError if there are no shards, and StoreError, which names the shard, if one is missing, damaged, not
    lgbatch's or of another kind, if two items of a name differ, or if the target is in use or cannot be written. All
    shards are opened before the target is changed.
    """
    plan = _Plan(shards, replacing, on_shard, twins=twins_of(names))
    _survey(plan, links)
    try:
        return _link(target, plan) if links else _copy(target, plan)
    except OSError as error:
        raise StoreError(f"cannot write {target}: {error.strerror or error}") from None


@dataclass
class _Plan:
    """What is to be joined, and what all shards have together, which is read before the target is changed."""

    shards: Sequence[Path]
    replacing: Sequence[Path]
    on_shard: Callable[[], None]
    kind: str = ""
    twins: set[str] = field(default_factory=set)
    several: set[bytes] = field(default_factory=set)
    """Groups of pairs that several shards have; for links only."""
    replaced: list[set[Item]] = field(default_factory=list)
    """Items of each shard in `replacing`."""

    def steps(self) -> Iterator[tuple[Path, set[Item], bool]]:
        """Yield each shard, its items that later ones replace, and whether it replaces those of earlier ones."""
        for path in self.shards:
            yield path, set().union(*self.replaced), False
        for number, path in enumerate(self.replacing, 1):
            yield path, set().union(*self.replaced[number:]), True


def _survey(plan: _Plan, links: bool) -> None:
    """Open each shard once, and complete the plan."""
    if not (plan.shards or plan.replacing):
        raise InputError("there are no shards to join: give at least one")
    count = Counter[bytes]()
    for path in (*plan.shards, *plan.replacing):
        with open_shard(path) as shard:
            plan.kind = plan.kind or shard.kind
            if shard.kind != plan.kind:
                raise StoreError(f"{path} holds {shard.kind}, not {plan.kind}: join features and matches separately")
            plan.twins.update(shard.table.get("twins", ()))
            if links and plan.kind == MatchStore.kind:
                count.update(shard.groups())
    plan.several = {group for group, shards in count.items() if shards > 1}
    for path in plan.replacing:
        with open_shard(path) as shard:
            plan.replaced.append({(group, name) for group in shard.groups() for name in shard.items(group)})


def _copy(target: Path, plan: _Plan) -> Joined:
    """Copy into the target or, if it is a store of links, into a file that then replaces it."""
    is_linked = _is_linked(target)
    path = target.with_name(f".{target.name}.joined") if is_linked else target
    with JoinedStore(path, plan.kind) as store:
        store.separate(plan.twins)
        _add_shards(store, plan, _COMMIT_SECONDS)
    if is_linked:
        path.replace(target)
        sync_folder(target.parent)
    return _result(target, store)


def _link(target: Path, plan: _Plan) -> Joined:
    if target.exists() and not _is_linked(target):
        raise StoreError(f"{target} is one plain file already: move it away, or join by copying")
    draft = target.with_name(f".{target.name}.new")
    _remove(draft)
    folder = target.resolve().parent
    paths = {path: Path(os.path.relpath(path.resolve(), folder)).as_posix() for path in (*plan.shards, *plan.replacing)}
    try:
        with LinkedStore(draft, plan.kind, paths, plan.several) as store:
            store.separate(plan.twins)
            _add_shards(store, plan)
        if target.exists() and filecmp.cmp(draft, target, shallow=False):
            store.added = store.replaced = 0
        else:
            draft.replace(target)
            sync_folder(target.parent)
    finally:
        _remove(draft)
    return _result(target, store)


def _add_shards(store: JoinedStore, plan: _Plan, commit_seconds: float = math.inf) -> None:
    """Add all shards, and commit every few seconds."""
    committed = time.monotonic()
    for path, skipped, replaces in plan.steps():
        with open_shard(path) as shard:
            store.add(shard, skipped=skipped, replaces=replaces)
        if time.monotonic() > committed + commit_seconds:
            store.commit()
            committed = time.monotonic()
        plan.on_shard()


def _is_linked(path: Path) -> bool:
    if not path.exists():
        return False
    with Store(path) as store:
        return store.shards is not None


def _remove(draft: Path) -> None:
    for path in draft, journal_path(draft):
        path.unlink(missing_ok=True)


def _result(target: Path, store: JoinedStore) -> Joined:
    items = sum(entry["items"] for entry in store.provenances.values())
    return Joined(target, items, store.points, store.added, store.replaced)
