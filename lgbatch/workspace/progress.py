"""Progress on standard error: a bar on a terminal, elsewhere a line every 30 seconds."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")
LINE_SECONDS = 30.0
"""Seconds between the lines outside a terminal."""


class Progress:
    """Shows how many items of a step are done. Close it at the end of the step.

    `total` is the number of items, or None for a step that does not count any; `unit` is the noun for one. `shown` is
    False for no output at all.
    """

    def __init__(self, step: str, *, total: int | None, unit: str, shown: bool = True) -> None:
        self._step, self._total, self._unit = step, total, unit
        self.done = 0
        self._began = self._told = time.monotonic()
        self._lines = shown and not sys.stderr.isatty()
        bar_format = "{desc}: {elapsed}" if total is None else None
        hidden = self._lines or not shown
        self._bar: tqdm[Any] = tqdm(total=total, desc=step, unit=unit, bar_format=bar_format, disable=hidden)

    def update(self, items: int = 1) -> None:
        """Count finished items."""
        self.done += items
        self._bar.update(items)
        self._tell()

    def refresh(self) -> None:
        """Show the elapsed time."""
        self._bar.refresh()
        self._tell()

    def close(self) -> None:
        """Complete the bar."""
        self._bar.close()

    def _tell(self) -> None:
        """Print a line if the last one is long ago."""
        now = time.monotonic()
        if self._lines and now - self._told >= LINE_SECONDS:
            self._told = now
            print(f"lgbatch: {self._format(now - self._began)}", file=sys.stderr, flush=True)

    def _format(self, elapsed: float) -> str:
        clock = tqdm.format_interval(elapsed)
        if self._total is None:
            return f"{self._step}: {clock} so far"
        text = f"{self._step}: {self.done} of {self._total} {self._unit}s, {clock} so far"
        left = elapsed * (self._total - self.done) / self.done if self.done else None
        return text if left is None else f"{text}, about {tqdm.format_interval(left)} left"


def track(items: Iterable[T], step: str, *, total: int, unit: str) -> Iterator[T]:
    """Yield the items and show how many the caller has finished."""
    progress = Progress(step, total=total, unit=unit)
    try:
        for item in items:
            yield item
            progress.update()
    finally:
        progress.close()
