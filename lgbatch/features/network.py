"""Feature extraction by a network, which lgbatch.runtime runs."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from lgbatch.config import Settings
from lgbatch.features.memory import MemoryBudget
from lgbatch.features.tiles import extract_in_tiles
from lgbatch.photos.coordinates import to_original
from lgbatch.photos.masks import drop_masked, keypoints_to_detect
from lgbatch.runtime.devices import BATCH_SIZES, stop_if_lost
from lgbatch.runtime.environment import available_cores
from lgbatch.runtime.models import Model, open_extractor
from lgbatch.runtime.precision import tell_missing_kernels
from lgbatch.runtime.registry import MIN_SIDE, SUBPIXEL_FITS, family
from lgbatch.runtime.session import Array
from lgbatch.storage.provenance import Provenance
from lgbatch.types import ByteArray, Features, Photo

_SMALL = (32, 32)
"""(height, width) of a photo that every device has memory for."""


class Extractor:
    """Extracts features from batches of photos of equal shape. Thread-safe."""

    def __init__(self, models: Path, settings: Settings, at_once: int = 1) -> None:
        """Open the model of settings.extractor for `at_once` calls of `extract` at once, which share the CPU's threads.

        Raises ModelError as models.open_extractor.
        """
        spare = max(0, (settings.threads or available_cores()) - at_once)
        self.model: Model = open_extractor(models, settings, 1 + spare)  # a calling thread is one of its call's
        tell_missing_kernels(models, settings)
        self.at_once = at_once if self.model.device == "cpu" else 1
        """Calls at once for which the model was opened: 1 on other devices than the CPU."""
        self.batch = BATCH_SIZES.get(self.model.device, 1)
        """The largest batch for the device."""
        self._max_keypoints = settings.max_keypoints
        self._extractor = settings.extractor
        self._in_kernels = "pixels" in self.model.session.inputs
        self._memory = MemoryBudget(settings.extractor, in_kernels=self._in_kernels)
        self._descriptor_dim = self.model.session.widths[2] or 0
        self.provenance: Provenance = {
            "extractor": settings.extractor,
            "weights": self.model.weights,
            "max_keypoints": settings.max_keypoints,
            "resize": settings.resize,
        }
        if fit := SUBPIXEL_FITS.get(family(settings.extractor)):
            self.provenance["subpixel_fit"] = fit

    def extract(self, photos: Sequence[Photo]) -> list[Features]:
        """Extract up to settings.max_keypoints keypoints of each photo. All photos must have one shape (H, W, 3).

        Keypoints are in pixels of the original images, top-left pixel centre (0, 0). Those that a mask hides are left
        out; to make up for them, more are detected. Photos with a side shorter than MIN_SIDE have none.
        On a CPU, photos that do not fit in the memory are extracted in tiles (tiles.py).

        Raises RuntimeError if the model fails, OutOfMemory if the photo does not fit in the memory even in tiles, and
        LgbatchError if the device fails and does not recover.
        """
        shape = photos[0].pixels.shape
        if min(shape[:2]) < MIN_SIDE:
            return [_no_features(photo, self._descriptor_dim) for photo in photos]
        count_wanted = max(keypoints_to_detect(self._max_keypoints, photo.masks) for photo in photos)
        side = self._memory.tile_side(shape[1], shape[0]) if self.model.device == "cpu" else 0
        if side and len(photos) > 1:
            return [features for photo in photos for features in self.extract([photo])]
        if side:
            outputs = extract_in_tiles(self._run, photos[0].pixels, side, self._extractor, count_wanted)
        else:
            outputs = self._run(np.stack([photo.pixels for photo in photos]), count_wanted)
        features = [
            Features(
                to_original(keypoints[:count], shape, photo.size, photo.orientation),
                scores[:count],
                descriptors[:count],
                photo.size,
                tile_side=side,
                orientation=photo.orientation,
            )
            for photo, keypoints, scores, descriptors, count in zip(photos, *outputs, strict=True)
        ]
        if count_wanted > self._max_keypoints or any(photo.masks for photo in photos):
            limit = self._max_keypoints
            return [drop_masked(f, photo.masks, limit) for f, photo in zip(features, photos, strict=True)]
        return features

    def _run(self, pixels: ByteArray, max_keypoints: int) -> Sequence[Array]:
        """Run the model on pixels (B, H, W, 3). On a CPU, wait for the memory."""
        height, width = pixels.shape[1:3]
        try:
            with self._memory.reserve(width, height) if self.model.device == "cpu" else nullcontext():
                return self.model.run(self._feed(pixels, max_keypoints))
        except Exception as error:  # each runtime has its own exceptions
            small = np.zeros((1, *_SMALL, 3), np.uint8)
            stop_if_lost(self.model.device, error, lambda: self.model.run(self._feed(small, max_keypoints)))
            raise

    def _feed(self, pixels: ByteArray, max_keypoints: int) -> dict[str, Array]:
        """Inputs of the model for pixels (B, H, W, 3)."""
        limit = np.array(max_keypoints)
        if self._in_kernels:
            return {"pixels": pixels, "max_keypoints": limit}
        return {"image": pixels.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255), "max_keypoints": limit}


def _no_features(photo: Photo, descriptor_dim: int) -> Features:
    empty = np.zeros(0, dtype=np.float32)
    return Features(
        empty.reshape(0, 2), empty, empty.reshape(0, descriptor_dim), photo.size, orientation=photo.orientation
    )
