"""Grey photos at full size, decoded when they are needed and kept while the memory allows."""

from collections import OrderedDict
from pathlib import Path
from threading import Lock

import cv2
import numpy as np

from lgbatch.errors import ItemError
from lgbatch.photos.decode import decode
from lgbatch.types import ByteArray, ImageRef

_MOST_BYTES = 1 << 30


class GreyPhotos:
    """The photos of a model by name. Thread-safe."""

    def __init__(self, folder: Path, most_bytes: int = _MOST_BYTES) -> None:
        """Read photos below `folder`; keep those that were used last, up to `most_bytes`."""
        self._folder, self._most_bytes, self._bytes = folder, most_bytes, 0
        self._kept: OrderedDict[str, ByteArray] = OrderedDict()
        self._lock = Lock()

    def read(self, name: str, size: tuple[int, int]) -> ByteArray | None:
        """Return the brightness of the pixels as stored, (H, W) uint8.

        None if the photo cannot be read, or has not the `size` (width, height) of its camera.
        """
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
                return self._kept[name]
        try:
            pixels = decode(ImageRef(name, self._folder / name), 0).pixels
        except ItemError:
            return None
        if pixels.shape[1::-1] != size:
            return None
        grey = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)
        self._keep(name, grey)
        return grey

    def _keep(self, name: str, grey: ByteArray) -> None:
        with self._lock:
            if name not in self._kept:
                self._kept[name] = grey
                self._bytes += grey.nbytes
            while self._bytes > self._most_bytes:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
