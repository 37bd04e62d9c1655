"""Memory that extraction needs: photos that are too large for it, and how many are extracted at once."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import median_low
from threading import Condition, Lock
from typing import NoReturn

from lgbatch.config import Settings
from lgbatch.errors import OutOfMemory
from lgbatch.features.tiles import SIDES
from lgbatch.photos.coordinates import resized_size
from lgbatch.photos.metadata import read_metadata
from lgbatch.runtime.environment import available_cores, available_memory, private_memory
from lgbatch.runtime.precision import extractor_kind
from lgbatch.runtime.registry import family
from lgbatch.types import ImageRef

BYTES_PER_PIXEL = {"disk": 1400, "aliked-t16": 350, "aliked": 550, "xfeat": 220, "superpoint": 850, "sift": 290}
"""Peak memory per pixel, by extractor or its family. Measured at 1, 4 and 10 megapixels on a CPU: DISK 1110 to 1400,
ALIKED-t16 330 to 340, ALIKED-n16 460 to 530, XFeat 190 to 210, SuperPoint 790 to 830, SIFT 280. Photos at once need
the sum or less (measured for two and three)."""
KERNEL_BYTES_PER_PIXEL = {"aliked": 130, "disk": 135}
"""The same for the networks that run in lgbatch.kernels. Measured at 1, 4 and 12 megapixels: ALIKED-n16 119 to 126,
DISK 121 to 129."""
_ALONE, _TOGETHER = 0.9, 0.7
"""Parts of the available memory that one photo, and photos at once, may take; the next photos are decoded meanwhile."""
_UNREPORTED = 4e9
"""Bytes that photos at once may take if the system does not report its memory."""
_SAMPLE, _USUAL_SIZE = 16, (4000, 3000)
"""Photos whose sizes are read; (width, height) if none can be read."""


class MemoryBudget:
    """The memory that the photos in extraction share. Thread-safe.

    Whether a photo fits, as a whole or in tiles, is told as if no other one were in extraction. If it does not fit
    beside the others, it waits. ONNX Runtime keeps the memory of earlier photos, which the next ones use again.
    """

    def __init__(self, extractor: str, *, in_kernels: bool = False) -> None:
        """Use the measured need of an extractor. Memory that the process has now is not for photos."""
        self._extractor = extractor
        measured = KERNEL_BYTES_PER_PIXEL if in_kernels else BYTES_PER_PIXEL
        self._bytes_per_pixel = measured[extractor if extractor in measured else family(extractor)]
        self._before = private_memory()
        self._reserved = self._most_reserved = 0
        self._door, self._changed = Lock(), Condition()

    def check(self, width: int, height: int) -> None:
        """Raise OutOfMemory if a photo of this size in pixels needs more memory than there is."""
        if not self._fits(width, height):
            self._refuse(width, height)

    def tile_side(self, width: int, height: int) -> int:
        """Return 0 if a photo of this size in pixels fits as a whole, otherwise the largest of tiles.SIDES that fits.

        Raises OutOfMemory if the smallest one does not.
        """
        if self._fits(width, height):
            return 0
        for side in SIDES:
            if max(width, height) > side and self._fits(min(width, side), min(height, side)):
                return side
        self._refuse(width, height)

    def at_once(self, pixels: int) -> int:
        """Return how many photos of this number of pixels fit at once; 0 if one takes more than their part."""
        return int(self._shared() / self._need(pixels))

    @contextmanager
    def reserve(self, width: int, height: int) -> Iterator[None]:
        """Wait until a photo or tile of this size fits beside those in extraction, or there are none."""
        need = self._need(width * height)
        with self._door, self._changed:  # behind the door, so that small photos do not overtake a large one for ever
            self._changed.wait_for(lambda: not self._reserved or self._reserved + need <= self._shared())
            self._reserved += need
            self._most_reserved = max(self._most_reserved, self._reserved)
        try:
            yield
        finally:
            with self._changed:
                self._reserved -= need
                self._changed.notify()

    def _need(self, pixels: int) -> int:
        return pixels * self._bytes_per_pixel

    def _fits(self, width: int, height: int) -> bool:
        usable = self._usable()
        return usable is None or self._need(width * height) <= _ALONE * usable

    def _shared(self) -> float:
        usable = self._usable()
        return _UNREPORTED if usable is None else _TOGETHER * usable

    def _usable(self) -> int | None:
        """The memory for photos in bytes, with what those in extraction have taken and what is kept of earlier ones."""
        available = available_memory()
        if available is None:
            return None
        return available + max(0, min(private_memory() - self._before, self._most_reserved))

    def _refuse(self, width: int, height: int) -> NoReturn:
        needed, usable = self._need(width * height), _ALONE * (self._usable() or 0)
        side = max(width, height) * math.sqrt(usable / needed)
        raise OutOfMemory(
            f"{self._extractor} needs about {needed / 1e9:.1f} GB of memory for {width} x {height} pixels, and "
            f"{usable / 1e9:.1f} GB are available: use --resize {int(side) // 16 * 16} --on-change recompute"
        )


def photos_at_once(refs: Sequence[ImageRef], settings: Settings) -> int:
    """Return how many photos a CPU extracts at once: one a core, if there are as many and the memory is enough.

    The median size of a few photos decides, as their headers tell. Larger ones wait for memory (MemoryBudget.reserve).
    """
    read = (read_metadata(ref.path) for ref in refs[:: math.ceil(len(refs) / _SAMPLE) or 1])
    sizes = [metadata.size for metadata in read if metadata] or [_USUAL_SIZE]
    pixels = median_low(math.prod(resized_size(*size, settings.resize)) for size in sizes)
    cores = settings.threads or available_cores()
    budget = MemoryBudget(settings.extractor, in_kernels=extractor_kind(settings) == "extractor-kernels")
    return max(1, min(cores, len(refs), budget.at_once(pixels)))
