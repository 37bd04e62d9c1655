"""Photos -> features store: decoded in threads ahead of the model, extracted in batches of equal shape."""

import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from lgbatch.ahead import ahead
from lgbatch.changes import drop_others, photos_to_extract
from lgbatch.config import Settings
from lgbatch.crawl import Crawl, crawl
from lgbatch.decode import decode, to_original
from lgbatch.devices import BATCH
from lgbatch.errors import StoreError
from lgbatch.finished import Finished, photos_digest, relevant, signature
from lgbatch.interrupt import deferred, until_stopped
from lgbatch.ledger import Ledger
from lgbatch.models import MIN_SIDE, Model, model_path, open_extractor
from lgbatch.provenance import Provenance, photo_file
from lgbatch.runtime import available_cores
from lgbatch.sift import SiftExtractor
from lgbatch.store import FeatureStore
from lgbatch.types import Failure, Features, ImageRef, Photo, PhotoFile

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
    finished_already: bool = False
    """Nothing has changed since an earlier run, of which the other figures are."""


class Extractor:
    """A batch of photos of one shape in, features out, by a network."""

    def __init__(self, models: Path, settings: Settings) -> None:
        """Open the extractor's model. Raises ModelError as models.open_extractor."""
        self.model: Model = open_extractor(models, settings)
        self.batch = BATCH.get(self.model.device, 1)
        self._max_keypoints = np.array(settings.max_keypoints)
        self._dim = self.model.session.widths[2] or 0
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


def open_extraction(models: Path, settings: Settings) -> Extractor | SiftExtractor:
    """What extracts the features that the settings name. Raises ModelError as models.open_extractor."""
    return SiftExtractor(settings) if settings.extractor == "sift" else Extractor(models, settings)


def extract(
    images: Path,
    store_path: Path,
    *,
    models: Path,
    settings: Settings,
    found: Crawl | None = None,
    retry_failed: bool = False,
) -> Extracted:
    """Extract every photo below `images` that the store lacks. A photo that cannot be used is a Failure.

    One that failed before is a Failure again without being tried, unless its file or the settings have changed, or
    with `retry_failed`.

    Raises InputError (no photos), ModelError, StoreError (disk full, and what changes.photos_to_extract refuses),
    and LgbatchError where more photos fail than settings.max_errors allows.
    """
    found = found or crawl(images)
    ledger = Ledger(store_path.parent, retry=retry_failed, limit=settings.max_errors)
    matter = relevant("extract", settings)
    finished = Finished(
        store_path.parent,
        "extract",
        settings=matter,
        images=str(images.resolve()),
        photos=photos_digest(found),
        model=signature(model_path(models, settings.extractor, "extractor")),
    )
    before = finished.result(Extracted, failures=Failure)
    if before and ledger.settled(before.failures):
        return replace(before, new=0)
    extractor = open_extraction(models, settings)
    try:
        store_path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot make the folder {store_path.parent}: {error.strerror}") from None
    failures = list(found.failures)
    for failure in failures:
        ledger.add(failure)
    ledger.check()
    with FeatureStore(store_path, append=extractor.provenance) as store:
        store.set_image_folder(images.resolve())
        missing = {ref.name: ref for ref in photos_to_extract(store, found.images, settings.on_change)}
        tried = {name: {"file": signature(ref.path), "settings": matter} for name, ref in missing.items()}
        failures += filter(None, (ledger.known("extract", name, tried[name]) for name in tried))
        known = {failure.name for failure in failures}
        todo = [ref for name, ref in missing.items() if name not in known]
        files: dict[str, PhotoFile] = {}
        new, committed = 0, time.monotonic()
        with deferred(), tqdm(total=len(todo), desc="extract", unit="photo", disable=None) as bar:
            for name, outcome in _features(todo, extractor, settings, files):
                if name in store:  # it is made again
                    store.remove(name)
                if isinstance(outcome, Failure):
                    failures.append(outcome)
                    ledger.add(outcome, tried[name])
                    if ledger.full:
                        break
                else:
                    store.write(name, outcome, files.pop(name, None))
                    new += 1
                bar.update()
                if time.monotonic() - committed > COMMIT_SECONDS:
                    store.commit()
                    committed = time.monotonic()
            store.commit()
        ledger.check()
        drop_others(store, settings.on_change)
        keypoints = store.points
    ledger.finish({"crawl", "extract"}, failures)
    result = Extracted(len(found.images) + len(found.failures), new, keypoints, tuple(failures))
    finished.save(result, [store_path])
    return result


def _features(
    refs: Sequence[ImageRef], extractor: Extractor | SiftExtractor, settings: Settings, files: dict[str, PhotoFile]
) -> Iterator[tuple[str, Features | Failure]]:
    """What becomes of each photo; what its file was, which is looked at first, is added to `files`."""

    def attempt(ref: ImageRef) -> Photo | Failure:
        try:
            with suppress(OSError):  # decode tells
                files[ref.name] = photo_file(ref)
            return decode(ref, settings.resize, settings.max_megapixels)
        except Exception as error:  # ItemError; or out of memory, say
            return _failure(ref.name, error)

    threads = min(4, settings.threads or available_cores())
    photos = ahead(attempt, refs, threads=threads, depth=threads + 2 * extractor.batch)
    for batch in until_stopped(group_by_shape(photos, extractor.batch)):
        if isinstance(batch, Failure):
            yield batch.name, batch
        else:
            yield from _extract_or_fail(extractor, batch)


def _extract_or_fail(
    extractor: Extractor | SiftExtractor, photos: Sequence[Photo]
) -> Iterator[tuple[str, Features | Failure]]:
    try:
        outcome = extractor.extract(photos)
    except Exception as error:  # out of memory, say; ONNX Runtime has a class for each status code
        if len(photos) > 1:  # one photo may be to blame
            for photo in photos:
                yield from _extract_or_fail(extractor, [photo])
        else:
            yield photos[0].name, _failure(photos[0].name, error)
    else:
        yield from zip((photo.name for photo in photos), outcome, strict=True)


def _failure(name: str, error: Exception) -> Failure:
    """Made where the error is caught, with its traceback."""
    reason = str(error).strip().partition("\n")[0][:300] or type(error).__name__
    return Failure("extract", name, reason, traceback.format_exc())


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
