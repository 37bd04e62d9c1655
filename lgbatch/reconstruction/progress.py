"""COLMAP database -> verified pairs and sparse models, through pycolmap.

Verification writes its two-view geometries into the database and skips the pairs that have one, so it goes on
where it stopped. COLMAP does that and the mapping in a process of its own (mapping.py), which may abort. Every random
seed is fixed. Verification then gives the same result with any number of threads;
mapping only with one, and with more the models of a hard scene can differ visibly from run to run.
"""

import time
from typing import Any

from tqdm import tqdm

from lgbatch.reconstruction.subprocess_worker import Message


class Progress:
    """What COLMAP's process tells, as bars on a terminal."""

    def __init__(self, images: int, shown: bool) -> None:
        self._images, self._shown = images, shown
        self._bar: tqdm[Any] | None = None
        self.began: dict[str, float] = {}
        """When verification and mapping began, by time.perf_counter."""

    def __call__(self, message: Message | None) -> None:
        if message and "begun" in message:
            self._begin(message["begun"])
        elif self._bar is not None and message:  # models can share images, and can be given up
            self._bar.update(min(message["registered"], self._images - self._bar.n))
        elif self._bar is not None:
            self._bar.refresh()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def _begin(self, what: str) -> None:
        self.close()
        self.began[what] = time.perf_counter()
        total = self._images if what == "mapping" else None
        form = None if total else "{desc}: {elapsed}"  # COLMAP does not tell how far verification is
        self._bar = tqdm(total=total, desc=what, unit="img", bar_format=form, disable=None if self._shown else True)
