"""Select the image pairs to match: all pairs, or neighbours in the sequences of a set."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import NamedTuple

from lgbatch.config import Settings
from lgbatch.types import Pair

_NaturalKey = tuple[str | tuple[int, str], ...]


class RigPlace(NamedTuple):
    """Where an image belongs in a rig."""

    camera: str
    """The same for all images of a camera of a rig."""
    frame: str
    """The same for the images that the cameras of a rig took at the same time."""


_NO_RIG: Mapping[str, RigPlace] = MappingProxyType({})


def exhaustive(names: Sequence[str]) -> list[Pair]:
    """Pair each image with all later ones: N (N - 1) / 2 pairs, in the order of `names`."""
    return [Pair(a, b) for a, b in combinations(names, 2)]


def sequential(names: Sequence[str], window: int, rig: Mapping[str, RigPlace] = _NO_RIG) -> list[Pair]:
    """Pair each image with the `window` images that follow it in its folder, or with all if fewer follow.

    Each folder is a sequence of its own, in natural order of the file names: frame2 comes before frame10. `rig` has the
    places of the images that belong to a rig, by name. Each of its cameras is a sequence, and the cameras go in step,
    as in COLMAP's sequential matcher with expand_rig_images: an image is also paired with the other images of its
    frame, and with those of the frames of the images that follow it.
    """
    order = sorted(names, key=_natural_order)
    frames: dict[str, list[str]] = {}
    sequences: dict[tuple[PurePosixPath, str | None], list[str]] = {}
    for name in order:
        place = rig.get(name)
        sequences.setdefault((PurePosixPath(name).parent, place and place.camera), []).append(name)
        if place:
            frames.setdefault(place.frame, []).append(name)
    pairs: dict[frozenset[str], Pair] = {}
    for sequence in sequences.values():
        for i, a in enumerate(sequence):
            for b in sequence[i : i + 1 + window]:
                together = frames[rig[b].frame] if b in rig else [b]
                for other in [b, *together]:
                    if other != a:
                        pairs.setdefault(frozenset((a, other)), Pair(a, other))
    return list(pairs.values())


def make_pairs(names: Sequence[str], settings: Settings, rig: Mapping[str, RigPlace] = _NO_RIG) -> list[Pair]:
    """Return the pairs for the method `settings.pairing`. `rig` has the images that belong to a rig, by name."""
    if settings.pairing == "sequential":
        return sequential(names, settings.window, rig)
    return exhaustive(names)


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
