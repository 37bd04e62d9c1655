"""What COLMAP's process reports: the progress of verification and mapping, and the warnings in its log."""

import logging
import re
import sys
import time

from lgbatch.reconstruction.results import Warned
from lgbatch.reconstruction.subprocess_worker import Message, run_worker
from lgbatch.workspace.progress import Progress as Steps

_WARNING = re.compile(r"W\d{4,8} \d\d:\d\d:\d\d\S*\s+\d+ \S+:\d+\] (?P<text>(?!Could not read image ).+)")
"""glog's line of a warning: W, date, time, thread, file:line]. Not of photos that COLMAP cannot read:
colmap_worker.py colors their points."""
_MOST_WARNINGS, _MOST_CHARACTERS = 20, 300


class Progress:
    """Shows the progress messages of COLMAP's process.

    `images` is the number of images that can be registered.
    """

    def __init__(self, images: int, shown: bool) -> None:
        self._images, self._shown = images, shown
        self._step: Steps | None = None
        self.began: dict[str, float] = {}
        """Start of "verification" and "mapping", by time.perf_counter."""

    def __call__(self, message: Message | None) -> None:
        """Start a step, count registered images, or show the elapsed time on None."""
        if message and "begun" in message:
            self._begin(message["begun"])
        elif self._step is not None and message:  # capped: models share images, and COLMAP discards some models
            self._step.update(min(message["registered"], self._images - self._step.done))
        elif self._step is not None:
            self._step.refresh()

    def close(self) -> None:
        """End the step."""
        if self._step is not None:
            self._step.close()

    def _begin(self, step: str) -> None:
        self.close()
        self.began[step] = time.perf_counter()
        total = self._images if step == "mapping" else None  # COLMAP does not report the progress of verification
        self._step = Steps(step, total=total, unit="image", shown=self._shown)


class Log:
    """Collects the warnings in the log of COLMAP's process, and prints the log with `echo`.

    Warnings that differ only in their numbers count as one.
    """

    def __init__(self, echo: bool) -> None:
        self._echo = echo
        self._warnings: dict[str, Warned] = {}

    def __call__(self, line: str) -> None:
        """Read one line of the log."""
        if self._echo:
            sys.stderr.write(line)
        if found := _WARNING.match(line):
            text = found["text"].strip()
            text = text if len(text) <= _MOST_CHARACTERS else text[:_MOST_CHARACTERS] + "..."
            key = re.sub(r"\d+", "0", text)
            if key in self._warnings or len(self._warnings) < _MOST_WARNINGS:
                first = self._warnings.get(key, Warned(text, 0))
                self._warnings[key] = Warned(first.text, first.count + 1)

    @property
    def warnings(self) -> tuple[Warned, ...]:
        """The warnings, oldest first."""
        return tuple(self._warnings.values())


def run_timed(module: str, request: Message, step: str, *, shown: bool) -> Message:
    """Run a worker, as run_worker does, and show the time that the `step` takes.

    The request gets the key "log": whether the logger `lgbatch` is at DEBUG, and COLMAP's log is to be printed.
    """
    log = logging.getLogger("lgbatch").isEnabledFor(logging.DEBUG)
    steps = Steps(step, total=None, unit="model", shown=shown)
    try:
        echo = Log(echo=True) if log else None
        return run_worker(module, request | {"log": log}, lambda _: steps.refresh(), on_stderr=echo)
    finally:
        steps.close()
