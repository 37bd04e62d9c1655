"""Join shards into one store, by copying their items or by linking to them.

A shard is a features.h5 or matches.h5 that lgbatch has finished, and that is never changed again.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


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
    raise NotImplementedError
