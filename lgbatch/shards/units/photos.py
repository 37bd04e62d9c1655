"""Units of extraction: blocks of photos, and their features."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lgbatch.config import Settings
from lgbatch.features.extract import extract
from lgbatch.features.extractors import OpenExtractor
from lgbatch.photos.crawl import Crawl
from lgbatch.photos.decode import DECODING
from lgbatch.shards.units.canonical import write_features
from lgbatch.types import Failure, ImageRef
from lgbatch.workspace.stage_cache import Signature, signature


class PlannedPhoto(NamedTuple):
    """A photo of a plan."""

    name: str
    orientation: int
    """EXIF code, 1 to 8, by which it is turned upright."""
    masks: list[str]
    files: list[Signature]
    """Size and modification time of its file and its masks."""


def planned(ref: ImageRef) -> PlannedPhoto:
    """The photo as it is now."""
    files = [signature(path) for path in (ref.path, *ref.masks)]
    return PlannedPhoto(ref.name, ref.orientation, [str(path.resolve()) for path in ref.masks], files)


def as_ref(photo: PlannedPhoto, photos: Path) -> ImageRef:
    """The photo below the folder `photos`."""
    return ImageRef(photo.name, photos / photo.name, tuple(map(Path, photo.masks)), photo.orientation)


def photo_inputs(photos: Sequence[PlannedPhoto], settings: Settings, weights: Mapping[str, str]) -> dict[str, Any]:
    """The inputs of the unit of these photos."""
    return {
        "kind": "extract",
        "settings": settings.affecting("extract"),
        "weights": weights["extractor"],
        "photos": [list(photo) for photo in photos],
    }


def photos_of(inputs: Mapping[str, Any]) -> list[PlannedPhoto]:
    """The photos of a unit."""
    return [PlannedPhoto(*photo) for photo in inputs["photos"]]


def extract_unit(
    inputs: Mapping[str, Any],
    photos: Path,
    attempt: Path,
    *,
    image_folder: Path,
    models: Path,
    settings: Settings,
    open_extractor: OpenExtractor,
) -> int:
    """Extract the photos of a unit, in the folder `photos`, into `shard.h5` of the folder `attempt`.

    Returns their number. The store names `image_folder` as their folder.
    A photo whose file is not as it was planned is a failure in the ledger of the attempt. Raises as `extract`.
    """
    refs, failures = [], []
    for photo in photos_of(inputs):
        ref = as_ref(photo, photos)
        if [signature(path) for path in (ref.path, *ref.masks)] == photo.files:
            refs.append(ref)
        else:
            gone = "is gone" if not ref.path.is_file() else "has changed"
            reason = f"the file {gone} since it was planned: `lgbatch shard plan --retry failed` takes it as it is now"
            failures.append(Failure("extract", ref.name, reason))
    store = attempt / "features.h5"
    extract(
        photos,
        store,
        models=models,
        settings=settings,
        crawled=Crawl(refs, failures),
        open_extractor=open_extractor,
    )
    base = open_extractor(models, settings, 1).provenance | DECODING
    return write_features(store, attempt / "shard.h5", base, image_folder)
