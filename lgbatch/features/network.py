"""Feature extraction by a network, which lgbatch.runtime runs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lgbatch.config import Settings
from lgbatch.photos.resize import to_original
from lgbatch.runtime.devices import BATCH_SIZES
from lgbatch.runtime.models import Model, open_extractor
from lgbatch.runtime.registry import MIN_SIDE
from lgbatch.storage.provenance import Provenance
from lgbatch.types import Features, Photo


class Extractor:
    """Extracts features from batches of photos of equal shape. `batch` is the largest batch for its device."""

    def __init__(self, models: Path, settings: Settings) -> None:
        """Open the model of settings.extractor. Raises ModelError as models.open_extractor."""
        self.model: Model = open_extractor(models, settings)
        self.batch = BATCH_SIZES.get(self.model.device, 1)
        self._max_keypoints = np.array(settings.max_keypoints)
        self._descriptor_dim = self.model.session.widths[2] or 0
        self.provenance: Provenance = {
            "extractor": settings.extractor,
            "weights": self.model.weights,
            "max_keypoints": settings.max_keypoints,
            "resize": settings.resize,
        }

    def extract(self, photos: Sequence[Photo]) -> list[Features]:
        """Extract up to settings.max_keypoints keypoints of each photo. All photos must have one shape (H, W, 3).

        Keypoints are in pixels of the original images, top-left pixel centre (0, 0). Photos with a side shorter than
        MIN_SIDE have none. Raises RuntimeError if the model fails.
        """
        shape = photos[0].pixels.shape
        if min(shape[:2]) < MIN_SIDE:
            return [_no_features(photo, self._descriptor_dim) for photo in photos]
        images = np.stack([photo.pixels for photo in photos]).transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
        outputs = self.model.run({"image": images, "max_keypoints": self._max_keypoints})
        return [
            Features(to_original(keypoints[:count], shape, photo.size), scores[:count], descriptors[:count], photo.size)
            for photo, keypoints, scores, descriptors, count in zip(photos, *outputs, strict=True)
        ]


def _no_features(photo: Photo, descriptor_dim: int) -> Features:
    empty = np.zeros(0, dtype=np.float32)
    return Features(empty.reshape(0, 2), empty, empty.reshape(0, descriptor_dim), photo.size)
