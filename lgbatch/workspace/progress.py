"""Progress on standard error: a bar on a terminal, elsewhere a line every 30 seconds; or events for a callback."""

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")
LINE_SECONDS = 30.0
"""Seconds between the lines outside a terminal."""
tqdm.set_lock(threading.RLock())  # the default is a lock of processes too, which no other process takes


@dataclass(frozen=True, kw_only=True)
class ProgressEvent:
    """How far a step is. A step sends one at its beginning, after each item, while it waits, and at its end."""

    step: str
    """Name of the step, such as "extract", "match" or "mapping"."""
    done: int
    """Finished items."""
    total: int | None
    """Items of the step; None if it does not count any."""
    unit: str
    """The noun for one item: "photo", "pair", "image" or "model"."""
    seconds: float
    """Seconds since the beginning of the step."""
    ended: bool = False
    """The step has ended: this is its last event. `done` is less than `total` if it was left early."""


_callback: ContextVar[Callable[[ProgressEvent], object] | None] = ContextVar("progress callback", default=None)


@contextmanager
def report_progress(callback: Callable[[ProgressEvent], object]) -> Iterator[None]:
    """Call `callback` with each ProgressEvent of the calls in the block, which then show no progress bars.

    It is called in the thread that entered the block; other threads keep their bars. An exception that it raises ends
    the call, which raises it. Work is kept up to the last commit, a few seconds before; the same call continues it.
    """
    token = _callback.set(callback)
    try:
        yield
    finally:
        _callback.reset(token)


class Progress:
    """Shows how many items of a step are done. Close it at the end of the step.

    `total` is the number of items, or None for a step that does not count any; `unit` is the noun for one. `shown` is
    False for no output at all. Within `report_progress`, its callback is told instead.
    """

    def __init__(self, step: str, *, total: int | None, unit: str, shown: bool = True) -> None:
        self._step, self._total, self._unit = step, total, unit
        self.done = 0
        self._began = self._told = time.monotonic()
        self._callback = _callback.get() if shown else None
        self._lines = shown and self._callback is None and not sys.stderr.isatty()
        bar_format = "{desc}: {elapsed}" if total is None else None
        hidden = self._lines or not shown or self._callback is not None
        self._bar: tqdm[Any] = tqdm(total=total, desc=step, unit=unit, bar_format=bar_format, disable=hidden)
        self._tell()

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
        self._tell(ended=True)

    def _tell(self, ended: bool = False) -> None:
        """Call the callback, or print a line if the last one is long ago."""
        now = time.monotonic()
        if callback := self._callback:
            self._callback = None  # not called again if it raises
            seconds = now - self._began
            callback(
                ProgressEvent(
                    step=self._step, done=self.done, total=self._total, unit=self._unit, seconds=seconds, ended=ended
                )
            )
            self._callback = None if ended else callback
        elif self._lines and not ended and now - self._told >= LINE_SECONDS:
            self._told = now
            print(f"lgbatch: {self._format(now - self._began)}", file=sys.stderr, flush=True)

    def _format(self, elapsed: float) -> str:
        clock = tqdm.format_interval(elapsed)
        if self._total is None:
            return f"{self._step}: {clock} so far"
        text = f"{self._step}: {self.done} of {self._total} {self._unit}s, {clock} so far"
        left = elapsed * (self._total - self.done) / self.done if self.done else None
        return text if left is None else f"{text}, about {tqdm.format_interval(left)} left"


def track(items: Iterable[T], step: str, *, total: int, unit: str, shown: bool = True) -> Iterator[T]:
    """Yield the items and show how many the caller has finished, unless `shown` is False."""
    progress = Progress(step, total=total, unit=unit, shown=shown)
    try:
        for item in items:
            yield item
            progress.update()
    finally:
        progress.close()
