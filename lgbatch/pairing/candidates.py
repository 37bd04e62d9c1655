"""Select the image pairs to match: all pairs, or neighbours in a sequence."""

from collections.abc import Sequence
from itertools import combinations

from lgbatch.config import Settings
from lgbatch.types import Pair


def exhaustive(names: Sequence[str]) -> list[Pair]:
    """Pair each image with all later ones: N (N - 1) / 2 pairs, in the order of `names`."""
    return [Pair(a, b) for a, b in combinations(names, 2)]


def sequential(names: Sequence[str], window: int) -> list[Pair]:
    """Pair each image with the `window` images that follow it in `names`, or with all if fewer follow."""
    return [Pair(a, b) for i, a in enumerate(names) for b in names[i + 1 : i + 1 + window]]


def make_pairs(names: Sequence[str], settings: Settings) -> list[Pair]:
    """Return the pairs for the method `settings.pairing`."""
    if settings.pairing == "sequential":
        return sequential(names, settings.window)
    return exhaustive(names)
