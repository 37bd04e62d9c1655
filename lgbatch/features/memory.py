"""Memory that extraction needs, so that a photo that is too large is extracted in tiles, or fails alone."""

import math
from typing import NoReturn

from lgbatch.errors import OutOfMemory
from lgbatch.features.tiles import SIDES
from lgbatch.runtime.environment import available_memory
from lgbatch.runtime.registry import family

BYTES_PER_PIXEL = {"disk": 1400, "aliked-t16": 350, "aliked": 550, "xfeat": 220, "superpoint": 850, "sift": 290}
"""Peak memory per pixel, by extractor or its family. Measured at 1, 4 and 10 megapixels on a CPU: DISK 1110 to 1400,
ALIKED-t16 330 to 340, ALIKED-n16 460 to 530, XFeat 190 to 210, SuperPoint 790 to 830, SIFT 280."""
_USABLE = 0.9
"""Part of the available memory that one photo may take; the next photos are decoded meanwhile."""


class MemoryCheck:
    """Tells whether photos fit in the memory, as a whole or in tiles.

    ONNX Runtime keeps the memory of the largest photo so far, which the next photos use again.
    """

    def __init__(self, extractor: str) -> None:
        """Use the measured need of an extractor."""
        self._extractor = extractor
        self._bytes_per_pixel = BYTES_PER_PIXEL[extractor if extractor in BYTES_PER_PIXEL else family(extractor)]
        self._kept = 0

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

    def keep(self, width: int, height: int) -> None:
        """Note that the memory for a photo of this size is kept for the next ones."""
        self._kept = max(self._kept, width * height * self._bytes_per_pixel)

    def _fits(self, width: int, height: int) -> bool:
        usable = self._usable()
        return usable is None or width * height * self._bytes_per_pixel <= usable

    def _usable(self) -> float | None:
        available = available_memory()
        return None if available is None else _USABLE * available + self._kept

    def _refuse(self, width: int, height: int) -> NoReturn:
        needed, usable = width * height * self._bytes_per_pixel, self._usable() or 0
        side = max(width, height) * math.sqrt(usable / needed)
        raise OutOfMemory(
            f"{self._extractor} needs about {needed / 1e9:.1f} GB of memory for {width} x {height} pixels, and "
            f"{usable / 1e9:.1f} GB are available: use --resize {int(side) // 16 * 16} --on-change recompute"
        )
