"""Which images to match with each other, and the file that says so."""

from collections.abc import Sequence
from itertools import combinations

from lgbatch.config import Settings
from lgbatch.types import Pair


def exhaustive(names: Sequence[str]) -> list[Pair]:
    """Every image with every later one: N (N - 1) / 2 pairs, in the order of `names`."""
    return [Pair(a, b) for a, b in combinations(names, 2)]


def sequential(names: Sequence[str], window: int) -> list[Pair]:
    """Every image with the `window` images that follow it in `names`, or as many as there are."""
    return [Pair(a, b) for i, a in enumerate(names) for b in names[i + 1 : i + 1 + window]]


def make_pairs(names: Sequence[str], settings: Settings) -> list[Pair]:
    """The pairs that `settings.pairing` asks for."""
    if settings.pairing == "sequential":
        return sequential(names, settings.window)
    return exhaustive(names)
