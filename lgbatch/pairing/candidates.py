"""Select the image pairs to match: all pairs, or neighbours in the sequences of a set."""

import re
import unicodedata
from collections.abc import Sequence
from itertools import combinations, groupby
from pathlib import PurePosixPath

from lgbatch.config import Settings
from lgbatch.types import Pair

_NaturalKey = tuple[str | tuple[int, str], ...]


def exhaustive(names: Sequence[str]) -> list[Pair]:
    """Pair each image with all later ones: N (N - 1) / 2 pairs, in the order of `names`."""
    return [Pair(a, b) for a, b in combinations(names, 2)]


def sequential(names: Sequence[str], window: int) -> list[Pair]:
    """Pair each image with the `window` images that follow it in its folder, or with all if fewer follow.

    Each folder is a sequence of its own, in natural order of the file names: frame2 comes before frame10.
    """
    pairs = []
    for _, folder in groupby(sorted(names, key=_natural_order), key=lambda name: PurePosixPath(name).parent):
        sequence = list(folder)
        pairs += [Pair(a, b) for i, a in enumerate(sequence) for b in sequence[i + 1 : i + 1 + window]]
    return pairs


def make_pairs(names: Sequence[str], settings: Settings) -> list[Pair]:
    """Return the pairs for the method `settings.pairing`."""
    if settings.pairing == "sequential":
        return sequential(names, settings.window)
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
