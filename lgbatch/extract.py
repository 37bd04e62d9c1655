"""Photos -> features store: decoded in threads ahead of the model, extracted in batches of equal shape."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from lgbatch.ahead import ahead
from lgbatch.changes import drop_others, photos_to_extract
from lgbatch.config import Settings
from lgbatch.crawl import Crawl, crawl
from lgbatch.decode import decode, to_original
from lgbatch.errors import ItemError, StoreError
from lgbatch.models import Model, available_cores, open_extractor
from lgbatch.provenance import Provenance, photo_file
from lgbatch.store import FeatureStore
from lgbatch.types import Failure, Features, ImageRef, Photo, PhotoFile

MIN_SIDE = 5
"""A keypoint is the greatest in a window of this many pixels; what is smaller has none."""
BATCH = {"CPUExecutionProvider": 1, "CUDAExecutionProvider": 8}
"""Photos in one batch. On CPU more are no faster (measured), and take more memory."""
COMMIT_SECONDS = 2.0
"""Most work that a killed run loses."""


@dataclass(frozen=True)
class Extracted:
    """What the features store holds of a folder of photos."""

    images: int
    """Photos found, those that failed among them."""
    new: int
    """Photos extracted now; the others were in the store."""
    keypoints: int
    """Of all images in the store."""
    failures: tuple[Failure, ...]


class Extractor:
    """A batch of photos of one shape in, features out."""

    def __init__(self, models: Path, settings: Settings) -> None:
        """Open the extractor's model. Raises ModelError as models.open_extractor."""
        self.model: Model = open_extractor(models, settings.extractor, device=settings.device, threads=settings.threads)
        self.batch = BATCH[self.model.provider]
        self._max_keypoints = np.array(settings.max_keypoints)
        self._dim = int(self.model.session.get_outputs()[2].shape[2])
        self.provenance: Provenance = {
            "extractor": settings.extractor,
            "weights": self.model.weights,
            "max_keypoints": settings.max_keypoints,
            "resize": settings.resize,
        }

    def extract(self, photos: Sequence[Photo]) -> list[Features]:
        """Features of photos of equal shape, keypoints in pixels of the original images."""
        shape = photos[0].pixels.shape
        if min(shape[:2]) < MIN_SIDE:
            return [_no_features(photo, self._dim) for photo in photos]
        images = np.stack([photo.pixels for photo in photos]).transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
        outputs = self.model.run({"image": images, "max_keypoints": self._max_keypoints})
        return [
            Features(to_original(keypoints[:count], shape, photo.size), scores[:count], descriptors[:count], photo.size)
            for photo, keypoints, scores, descriptors, count in zip(photos, *outputs, strict=True)
        ]


def extract(
    images: Path, store_path: Path, *, models: Path, settings: Settings, found: Crawl | None = None
) -> Extracted:
    """Extract every photo below `images` that the store lacks. A photo that cannot be used is a Failure.

    Raises InputError (no photos), ModelError, StoreError (disk full, and what changes.photos_to_extract refuses).
    """
    found = found or crawl(images)
    extractor = Extractor(models, settings)
    failures = list(found.failures)
    try:
        store_path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot make the folder {store_path.parent}: {error.strerror}") from None
    with FeatureStore(store_path, append=extractor.provenance) as store:
        store.set_image_folder(images.resolve())
        missing = photos_to_extract(store, found.images, settings.on_change)
        files: dict[str, PhotoFile] = {}
        before, committed = len(failures), time.monotonic()
        with tqdm(total=len(missing), desc="extract", unit="photo", disable=None) as bar:
            for name, outcome in _features(missing, extractor, settings, files):
                if name in store:  # it is made again
                    store.remove(name)
                if isinstance(outcome, Failure):
                    failures.append(outcome)
                else:
                    store.write(name, outcome, files.pop(name, None))
                bar.update()
                if time.monotonic() - committed > COMMIT_SECONDS:
                    store.commit()
                    committed = time.monotonic()
        new = len(missing) - (len(failures) - before)
        drop_others(store, settings.on_change)
        keypoints = store.points
    return Extracted(len(found.images) + len(found.failures), new, keypoints, tuple(failures))


def _features(
    refs: Sequence[ImageRef], extractor: Extractor, settings: Settings, files: dict[str, PhotoFile]
) -> Iterator[tuple[str, Features | Failure]]:
    """What becomes of each photo; what its file was, which is looked at first, is added to `files`."""

    def attempt(ref: ImageRef) -> Photo | Failure:
        try:
            with suppress(OSError):  # decode tells
                files[ref.name] = photo_file(ref)
            return decode(ref, settings.resize)
        except ItemError as error:
            return Failure("extract", ref.name, str(error))

    threads = min(4, settings.threads or available_cores())
    photos = ahead(attempt, refs, threads=threads, depth=threads + 2 * extractor.batch)
    for batch in group_by_shape(photos, extractor.batch):
        if isinstance(batch, Failure):
            yield batch.name, batch
        else:
            yield from _extract_or_fail(extractor, batch)


def _extract_or_fail(extractor: Extractor, photos: Sequence[Photo]) -> Iterator[tuple[str, Features | Failure]]:
    try:
        outcome = extractor.extract(photos)
    except Exception as error:  # out of memory, say; ONNX Runtime has a class for each status code
        if len(photos) > 1:  # one photo may be to blame
            for photo in photos:
                yield from _extract_or_fail(extractor, [photo])
        else:
            yield photos[0].name, Failure("extract", photos[0].name, str(error).strip().splitlines()[0][:300])
    else:
        yield from zip((photo.name for photo in photos), outcome, strict=True)


def group_by_shape(photos: Iterable[Photo | Failure], size: int) -> Iterator[list[Photo] | Failure]:
    """Batches of up to `size` photos of equal shape; failures pass at once. No more than 4 * size photos wait."""
    waiting: dict[tuple[int, ...], list[Photo]] = {}
    for photo in photos:
        if isinstance(photo, Failure):
            yield photo
            continue
        batch = waiting.setdefault(photo.pixels.shape, [])
        batch.append(photo)
        if len(batch) == size:
            yield waiting.pop(photo.pixels.shape)
        elif sum(len(others) for others in waiting.values()) > 4 * size:
            yield waiting.pop(next(iter(waiting)))
    yield from waiting.values()


def _no_features(photo: Photo, dim: int) -> Features:
    empty = np.zeros(0, dtype=np.float32)
    return Features(empty.reshape(0, 2), empty, empty.reshape(0, dim), photo.size)
