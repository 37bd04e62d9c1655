"""The extract stage: photos -> features.h5.

Threads hash and decode photos ahead of the model. A CPU extracts several photos at once, each in a thread of its own
(memory.photos_at_once), and their features are written in the order of the photos. Another device extracts one batch at
a time: photos of equal shape, since the model takes one image tensor without padding. Features are written in the order
in which the batches fill. write_items (workspace/stage.py) commits the store every few seconds.

Failures: a photo that cannot be decoded, or whose extraction fails, becomes a Failure and the run goes on. If a batch
fails, its photos are extracted one by one, so that only those to blame fail. The ledger records each Failure with the
signature of the file and the settings, so that later runs skip the photo until one of them changes.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from lgbatch.config import Settings
from lgbatch.errors import LgbatchError, StoreError
from lgbatch.features.extractors import OpenExtractor, open_feature_extractor
from lgbatch.features.memory import photos_at_once
from lgbatch.features.network import Extractor
from lgbatch.features.orient import orient
from lgbatch.features.sift import SiftExtractor
from lgbatch.photos.crawl import Crawl
from lgbatch.photos.decode import DECODING, DecodedPhotos, decode
from lgbatch.photos.file_hash import hash_photo
from lgbatch.photos.masks import crawl_with_masks, read_masks
from lgbatch.runtime.environment import available_cores
from lgbatch.runtime.precision import extractor_kind
from lgbatch.runtime.registry import model_path
from lgbatch.storage.features import FeatureStore
from lgbatch.types import Failure, Features, ImageRef, Photo, PhotoFile
from lgbatch.workspace.prefetch import prefetch
from lgbatch.workspace.signals import is_stopping, until_stopped
from lgbatch.workspace.stage import (
    Failures,
    StageResult,
    StageRun,
    drop_stale_items,
    item_settings,
    run_stage,
    write_items,
)
from lgbatch.workspace.stage_cache import photos_digest, signature
from lgbatch.workspace.staleness import plan_extraction

_TILES = "tile_side"
"""Value in the provenance of features that were extracted in tiles: the side of the tiles in pixels."""
Outcome = tuple[str, Features | Failure]
"""The name of a photo, with its features or the reason why it has none."""


@dataclass(frozen=True, kw_only=True)
class Extracted(StageResult):
    """Result of the extract stage, for the photos of a folder."""

    images: int
    """Photos in the folder, including those that failed."""
    new: int
    """Photos extracted in this run. The store held the others."""
    keypoints: int
    """Keypoints of the photos that did not fail."""
    in_tiles: int = 0
    """Photos that were extracted in tiles, because they did not fit in the memory."""
    turned_otherwise: int = 0
    """Photos whose features are of another orientation, which --on-change keep has kept."""

    def as_repeated(self) -> Self:
        """The result for a run that skips the stage: no photo is new."""
        return replace(super().as_repeated(), new=0)


def extract(
    images: Path,
    store_path: Path,
    *,
    models: Path,
    settings: Settings,
    crawled: Crawl | None = None,
    retry_failed: bool = False,
    open_extractor: OpenExtractor = open_feature_extractor,
) -> Extracted:
    """Extract the photos below `images` that the store lacks, and the stale ones with --on-change recompute.

    `crawled` is the result of crawl_with_masks and `orient`, if the caller has it. Photos are turned by their
    orientation. A photo that cannot be decoded or extracted is a Failure. It is retried if its file or the settings
    have changed, or with `retry_failed`. A killed run loses the photos since the last commit (write_items).

    Raises InputError (no photos), ModelError, StoreError (disk full, or staleness.plan_extraction refuses), and
    LgbatchError if more photos fail than settings.max_errors allows.
    """
    if crawled is None:
        crawled, _ = orient(crawl_with_masks(images, settings.masks, settings.camera_mask), store_path.parent, settings)
    stage = StageRun(
        name="extract",
        folder=store_path.parent,
        settings=settings,
        inputs={
            "images": str(images.resolve()),
            "photos": photos_digest(crawled),
            "model": signature(model_path(models, settings.extractor, extractor_kind(settings))),
        },
        outputs=lambda: [store_path],
        result=Extracted,
        reports=frozenset({"crawl", "extract"}),
    )

    def work(failures: Failures) -> Extracted:
        extractor = open_extractor(models, settings, photos_at_once(crawled.images, settings))
        return _extract_missing(images, store_path, extractor, settings, crawled, failures)

    try:
        return run_stage(stage, work, retry_failed=retry_failed)
    finally:
        crawled.decoded.clear()


def _extract_missing(
    images: Path,
    store_path: Path,
    extractor: Extractor | SiftExtractor,
    settings: Settings,
    crawled: Crawl,
    failures: Failures,
) -> Extracted:
    _create_folder(store_path.parent)
    for failure in crawled.failures:
        failures.add(failure)
    failures.check()
    with FeatureStore(store_path, append=extractor.provenance | DECODING) as store:
        # Older features are of the same pixels but for a third of a grey level; tiles depend on the available memory.
        store.accept_differences(*DECODING, _TILES)
        store.set_image_folder(images.resolve())
        affecting = item_settings(settings, "extract")

        def inputs_of(ref: ImageRef) -> dict[str, Any]:
            masks = {"masks": [*map(signature, ref.masks)]} if ref.masks else {}
            return {"file": signature(ref.path), "settings": affecting} | masks

        def has_failed(ref: ImageRef) -> bool:
            return failures.known("extract", ref.name, inputs_of(ref))

        to_extract = plan_extraction(store, crawled.images, settings.on_change, has_failed)
        inputs = {ref.name: inputs_of(ref) for ref in to_extract}
        photo_files: dict[str, PhotoFile] = {}
        new = 0

        def write(item: Outcome) -> None:
            nonlocal new
            name, outcome = item
            if isinstance(outcome, Failure):
                failures.add(outcome, inputs[name])
            else:
                if name in store:  # stale features
                    store.remove(name)
                tiles = {_TILES: outcome.tile_side} if outcome.tile_side else {}
                with store.changed_provenance(**tiles):
                    store.write(name, outcome, photo_files.pop(name, None))
                new += 1

        outcomes = _extract_photos(to_extract, crawled.decoded, extractor, settings, photo_files)
        write_items(outcomes, write, store, failures, total=len(to_extract), stage="extract", unit="photo")
        drop_stale_items(store, failures, settings)
        failed = {failure.name for failure in failures.as_tuple()}
        names = [ref.name for ref in crawled.images if ref.name not in failed and ref.name in store]
        records = [store.record(name) for name in names]
        made_in_tiles = {key for key, entry in store.provenances.items() if _TILES in entry["by"]}
        in_tiles = sum(record.fingerprint in made_in_tiles for record in records)
        orientations = {ref.name: ref.orientation for ref in crawled.images}
        kept = names if settings.on_change == "keep" else ()
        return Extracted(
            images=len(crawled.images) + len(crawled.failures),
            new=new,
            keypoints=sum(record.keypoints for record in records),
            in_tiles=in_tiles,
            turned_otherwise=sum(store.orientation(name) != orientations[name] for name in kept),
            failures=failures.as_tuple(),
        )


def _create_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot create the folder {folder}: {error.strerror}") from None


def _extract_photos(
    refs: Sequence[ImageRef],
    decoded: DecodedPhotos,
    extractor: Extractor | SiftExtractor,
    settings: Settings,
    photo_files: dict[str, PhotoFile],
) -> Generator[Outcome, None, None]:
    """Yield the features or the Failure of each photo, once. Adds the hash of its file to `photo_files`."""

    def hash_and_decode(ref: ImageRef) -> Photo | Failure:
        try:
            with suppress(OSError):  # decode reports it
                photo_files[ref.name] = hash_photo(ref)  # first, so that a later change of the file is noticed
            photo = decoded.take(ref, settings.resize) or decode(ref, settings.resize, settings.max_megapixels)
            return replace(photo, masks=(*photo.masks, *read_masks(ref, photo.size))) if ref.masks else photo
        except Exception as error:  # ItemError, or for instance MemoryError
            return Failure.from_exception("extract", ref.name, error)

    def outcomes_of(batch: list[Photo] | Failure) -> list[Outcome]:
        if isinstance(batch, Failure):
            return [(batch.name, batch)]
        return [] if is_stopping() else [*_extract_or_fail(extractor, batch)]

    threads, at_once = settings.threads or available_cores(), extractor.at_once
    ahead = threads if at_once == 1 else at_once  # others are decoded and wait between the two pools
    photos = prefetch(hash_and_decode, refs, threads=threads, depth=ahead + 2 * extractor.batch)
    batches = until_stopped(group_by_shape(photos, extractor.batch))
    depth = 1 if at_once == 1 else 2 * at_once
    for outcomes in prefetch(outcomes_of, batches, threads=at_once, depth=depth):
        yield from outcomes


def _extract_or_fail(extractor: Extractor | SiftExtractor, photos: Sequence[Photo]) -> Iterator[Outcome]:
    """Extract a batch. If it fails, extract its photos one by one, and yield a Failure for each that fails again."""
    try:
        features = extractor.extract(photos)
    except LgbatchError:  # the device is lost: all other photos would fail too
        raise
    except Exception as error:  # for instance out of memory; ONNX Runtime has one class per status code
        if len(photos) > 1:
            for photo in photos:
                yield from _extract_or_fail(extractor, [photo])
        else:
            yield photos[0].name, Failure.from_exception("extract", photos[0].name, error)
    else:
        yield from zip((photo.name for photo in photos), features, strict=True)


def group_by_shape(photos: Iterable[Photo | Failure], size: int) -> Iterator[list[Photo] | Failure]:
    """Yield batches of up to `size` photos of equal shape (H, W, 3), and each Failure at once.

    Holds at most 4 * size photos: beyond that, the batch that has waited longest is yielded although it is not full.
    """
    waiting: dict[tuple[int, ...], list[Photo]] = {}
    for photo in photos:
        if isinstance(photo, Failure):
            yield photo
            continue
        batch = waiting.setdefault(photo.pixels.shape, [])
        batch.append(photo)
        if len(batch) == size:
            yield waiting.pop(photo.pixels.shape)
        elif sum(map(len, waiting.values())) > 4 * size:
            yield waiting.pop(next(iter(waiting)))
    yield from waiting.values()
