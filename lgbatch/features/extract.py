"""Photos -> features store: decoded in threads ahead of the model, extracted in batches of equal shape."""

import traceback
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from lgbatch.config import Settings
from lgbatch.errors import StoreError
from lgbatch.features.extractors import open_feature_extractor
from lgbatch.features.network import Extractor
from lgbatch.features.sift import SiftExtractor
from lgbatch.photos.crawl import Crawl, crawl
from lgbatch.photos.decode import decode
from lgbatch.photos.file_hash import hash_photo
from lgbatch.runtime.environment import available_cores
from lgbatch.runtime.registry import model_path
from lgbatch.storage.features import FeatureStore
from lgbatch.types import Failure, Features, ImageRef, Photo, PhotoFile
from lgbatch.workspace.prefetch import prefetch
from lgbatch.workspace.signals import until_stopped
from lgbatch.workspace.stage import Failures, StageResult, StageRun, run_stage, write_items
from lgbatch.workspace.stage_cache import photos_digest, signature
from lgbatch.workspace.staleness import plan_extraction


@dataclass(frozen=True, kw_only=True)
class Extracted(StageResult):
    """What the features store holds of a folder of photos."""

    images: int
    """Photos found, including those that failed."""
    new: int
    """Photos extracted in this run. The store held the others."""
    keypoints: int
    """Keypoints of all images in the store."""

    def as_repeated(self) -> Self:
        """No photo is new in a run that skips the stage."""
        return replace(super().as_repeated(), new=0)


def extract(
    images: Path,
    store_path: Path,
    *,
    models: Path,
    settings: Settings,
    found: Crawl | None = None,
    retry_failed: bool = False,
) -> Extracted:
    """Extract every photo below `images` that the store lacks. A photo that cannot be used becomes a Failure.

    A photo that failed before stays a Failure until its file or the settings change, or with `retry_failed`.

    Raises InputError (no photos), ModelError, StoreError (disk full, or refused by staleness.plan_extraction), and
    LgbatchError if more photos fail than settings.max_errors allows.
    """
    found = found or crawl(images)
    stage = StageRun(
        name="extract",
        folder=store_path.parent,
        settings=settings,
        inputs={
            "images": str(images.resolve()),
            "photos": photos_digest(found),
            "model": signature(model_path(models, settings.extractor, "extractor")),
        },
        outputs=lambda: [store_path],
        result=Extracted,
        reports=frozenset({"crawl", "extract"}),
    )
    return run_stage(
        stage,
        lambda failures: _extract_missing(images, store_path, models, settings, found, failures),
        retry_failed=retry_failed,
    )


def _extract_missing(
    images: Path, store_path: Path, models: Path, settings: Settings, found: Crawl, failures: Failures
) -> Extracted:
    extractor = open_feature_extractor(models, settings)
    try:
        store_path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot make the folder {store_path.parent}: {error.strerror}") from None
    for failure in found.failures:
        failures.add(failure)
    failures.check()
    with FeatureStore(store_path, append=extractor.provenance) as store:
        store.set_image_folder(images.resolve())
        missing = plan_extraction(store, found.images, settings.on_change)
        affecting = settings.affecting("extract")
        inputs = {ref.name: {"file": signature(ref.path), "settings": affecting} for ref in missing}
        todo = [ref for ref in missing if not failures.known("extract", ref.name, inputs[ref.name])]
        files: dict[str, PhotoFile] = {}
        new = 0

        def write(item: tuple[str, Features | Failure]) -> None:
            nonlocal new
            name, outcome = item
            if name in store:  # recomputed
                store.remove(name)
            if isinstance(outcome, Failure):
                failures.add(outcome, inputs[name])
            else:
                store.write(name, outcome, files.pop(name, None))
                new += 1

        features = _features(todo, extractor, settings, files)
        write_items(features, write, store, failures, settings, total=len(todo), stage="extract", unit="photo")
        keypoints = store.points
    photos = len(found.images) + len(found.failures)
    return Extracted(images=photos, new=new, keypoints=keypoints, failures=failures.as_tuple())


def _features(
    refs: Sequence[ImageRef], extractor: Extractor | SiftExtractor, settings: Settings, files: dict[str, PhotoFile]
) -> Generator[tuple[str, Features | Failure], None, None]:
    """What becomes of each photo; what its file was, which is looked at first, is added to `files`."""

    def attempt(ref: ImageRef) -> Photo | Failure:
        try:
            with suppress(OSError):  # decode tells
                files[ref.name] = hash_photo(ref)
            return decode(ref, settings.resize, settings.max_megapixels)
        except Exception as error:  # ItemError; or out of memory, say
            return _failure(ref.name, error)

    threads = min(4, settings.threads or available_cores())
    photos = prefetch(attempt, refs, threads=threads, depth=threads + 2 * extractor.batch)
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
