"""Progress bars for verification and mapping."""

import time
from typing import Any

from tqdm import tqdm

from lgbatch.reconstruction.subprocess_worker import Message


class Progress:
    """Shows the progress messages of COLMAP's process as bars on a terminal.

    `images` is the number of images that can be registered.
    """

    def __init__(self, images: int, shown: bool) -> None:
        self._images, self._shown = images, shown
        self._bar: tqdm[Any] | None = None
        self.began: dict[str, float] = {}
        """Start of "verification" and "mapping", by time.perf_counter."""

    def __call__(self, message: Message | None) -> None:
        """Start the bar of a step, advance it by registered images, or redraw it on None."""
        if message and "begun" in message:
            self._begin(message["begun"])
        elif self._bar is not None and message:  # capped: models share images, and COLMAP discards some models
            self._bar.update(min(message["registered"], self._images - self._bar.n))
        elif self._bar is not None:
            self._bar.refresh()

    def close(self) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()

    def _begin(self, step: str) -> None:
        self.close()
        self.began[step] = time.perf_counter()
        total = self._images if step == "mapping" else None
        bar_format = None if total else "{desc}: {elapsed}"  # COLMAP does not report the progress of verification
        self._bar = tqdm(
            total=total, desc=step, unit="img", bar_format=bar_format, disable=None if self._shown else True
        )
