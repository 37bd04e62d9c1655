"""Select the image pairs to match: all pairs, or neighbours in the sequences of a set."""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from lgbatch.types import Pair, PairList

_NaturalKey = tuple[str | tuple[int, str], ...]


class RigPlace(NamedTuple):
    """Where an image belongs in a rig."""

    camera: str
    """The same for all images of a camera of a rig."""
    frame: str
    """The same for the images that the cameras of a rig took at the same time."""


NO_RIG: Mapping[str, RigPlace] = MappingProxyType({})


def exhaustive(names: Sequence[str]) -> PairList:
    """Pair each image with all later ones: N (N - 1) / 2 pairs, in the order of the N `names`, which are distinct."""
    order = np.arange(len(names), dtype=np.int32)
    later = [order[i:] for i in range(1, len(order))]
    ids = np.stack([np.repeat(order, order[::-1]), np.concatenate([order[:0], *later])], axis=1)
    return PairList(list(names), ids)


def sequential(
    names: Sequence[str], window: int, rig: Mapping[str, RigPlace] = NO_RIG, *, quadratic: bool = False
) -> list[Pair]:
    """Pair each image with the `window` images that follow it in its folder, or with all if fewer follow.

    With `quadratic`, also with those that follow at distances of powers of 2, of which there are `window`, as in
    COLMAP's sequential matcher.

    Each folder is a sequence of its own, in natural order of the file names: frame2 comes before frame10. `rig` has the
    places of the images that belong to a rig, by name. Each of its cameras is a sequence, and the cameras go in step,
    as in COLMAP's sequential matcher with expand_rig_images: an image is also paired with the other images of its
    frame, and with those of the frames of the images that follow it.
    """
    distances = {*range(1, window + 1)} | ({2**i for i in range(min(window, 31))} if quadratic else set())
    pairs: dict[frozenset[str], Pair] = {}
    for a, b, _ in followers(names, sorted(distances), rig):
        pairs.setdefault(frozenset((a, b)), Pair(a, b))
    return list(pairs.values())


def followers(
    names: Sequence[str], distances: Sequence[int], rig: Mapping[str, RigPlace] = NO_RIG
) -> Iterator[tuple[str, str, int]]:
    """Yield each image with one that follows it at one of the distances, and the distance: see `sequential`.

    The distance of images of one frame of a rig is 0. Their pairs come in both directions.
    """
    frames: dict[str, list[str]] = {}
    sequences = order_in_folders(names, rig)
    for name in sorted(rig.keys() & set(names), key=_natural_order):
        frames.setdefault(rig[name].frame, []).append(name)
    for sequence in sequences:
        for i, a in enumerate(sequence):
            for distance in (0, *distances):
                if i + distance >= len(sequence):
                    break
                b = sequence[i + distance]
                for other in [b, *(frames[rig[b].frame] if b in rig else ())]:
                    if other != a:
                        yield a, other, distance


def order_in_folders(names: Sequence[str], rig: Mapping[str, RigPlace] = NO_RIG) -> list[list[str]]:
    """Return the sequences of a set: the images of each folder, or of each camera of a rig in it, in natural order."""
    sequences: dict[tuple[PurePosixPath, str | None], list[str]] = {}
    for name in sorted(names, key=_natural_order):
        place = rig.get(name)
        sequences.setdefault((PurePosixPath(name).parent, place and place.camera), []).append(name)
    return list(sequences.values())


def _natural_order(name: str) -> tuple[tuple[_NaturalKey, ...], str, _NaturalKey, _NaturalKey, str]:
    """Sort key: folder, file name, extension. Names that differ in case or leading zeros only: by code points."""
    path = PurePosixPath(name)
    folders = tuple(map(_natural_key, path.parent.parts))
    return folders, str(path.parent), _natural_key(path.stem), _natural_key(path.suffix), name


def _natural_key(text: str) -> _NaturalKey:
    """Split a text into letters, whose case is ignored, and numbers: texts at even positions, numbers at odd ones."""
    parts = re.split(r"(\d+)", unicodedata.normalize("NFKC", text).casefold())
    return tuple(_number(part) if i % 2 else part for i, part in enumerate(parts))


def _number(digits: str) -> tuple[int, str]:
    """Return a key that sorts digits as numbers, of any length."""
    significant = "".join(str(unicodedata.decimal(digit)) for digit in digits).lstrip("0")
    return len(significant), significant
