"""What a long step will take: one line after its first seconds, and what would be faster if it takes hours."""

import sys
import time

from tqdm import tqdm

from lgbatch.types import counted

AFTER_SECONDS = 5.0
"""Seconds of work on which a forecast rests."""
_WORTH_SECONDS = 60.0
"""Shorter steps need no forecast: their progress shows it."""
_LONG_SECONDS = 3600.0
BYTES_PER_PAIR = 6500
"""With 350 matches of 2048 keypoints: 1.5 kB of matches.h5 and 5 kB of database.db (docs/pairs.md)."""


def describe(pairs: int, seconds: float) -> str:
    """Say how many pairs there are, how long they take, and how much disk they need."""
    return f"{counted(pairs, 'pair')}: about {_duration(seconds)} of matching, {_size(pairs * BYTES_PER_PAIR)} of disk"


class Forecast:
    """Prints a forecast of the matching of pairs on standard error, once, if it is worth one.

    `pairs` is their expected number, `faster` what would be faster, for steps of more than an hour.
    """

    def __init__(self, pairs: int, faster: str) -> None:
        """Begin to measure."""
        self._pairs, self._faster, self._done, self._told = pairs, faster, 0, False
        self._began = time.monotonic()

    def update(self) -> None:
        """Count a pair that has been matched."""
        self._done += 1
        elapsed = time.monotonic() - self._began
        if self._told or elapsed < AFTER_SECONDS:
            return
        self._told = True
        seconds = elapsed / self._done * self._pairs
        if seconds > _WORTH_SECONDS:
            advice = f"; {self._faster}" if seconds > _LONG_SECONDS else ""
            tqdm.write(f"lgbatch: {describe(self._pairs, seconds)}{advice}", file=sys.stderr)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} hours"


def _size(count: float) -> str:
    units = ("kB", "MB", "GB", "TB")
    for unit in units:
        count /= 1000
        if count < 1000 or unit == units[-1]:
            break
    return f"{count:.0f} {unit}"
