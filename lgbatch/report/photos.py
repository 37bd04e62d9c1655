"""The photos of a report: one row each, and the reasons of those that are not registered."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lgbatch.reconstruction.advice import advice, advice_on
from lgbatch.reconstruction.results import Model, Reconstruction, Unregistered
from lgbatch.reconstruction.unregistered import explain, failed_photos, find_unregistered
from lgbatch.report.contents import Contents
from lgbatch.types import ORIENTATIONS
from lgbatch.workspace.ledger import Entry
from lgbatch.workspace.stage_cache import recorded_figures, recorded_paths


@dataclass
class PhotoRow:
    """A photo of the report."""

    name: str
    width: int = 0
    """Of the stored pixels; 0 if unknown."""
    height: int = 0
    orientation: int = 1
    """EXIF code by which the photo was turned upright."""
    keypoints: int | None = None
    """None if its features are not extracted."""
    image_id: int | None = None
    """In the database; None if it is not there."""
    model: int | None = None
    """Number of the model that has it, None if none does."""
    observations: int = 0
    """3D points that it observes."""
    error: float | None = None
    """Mean reprojection error in pixels."""
    gps_residual: float | None = None
    """Metres between its GPS position and its camera in the aligned model."""
    cause: str | None = None
    """Why it is not in the largest model: results.Cause."""
    reason: str | None = None
    """The cause in words, with its figures."""
    advice: str | None = None
    """What to do, with the whole command between backticks."""


def list_photos(found: Contents) -> list[PhotoRow]:
    """Return a row for each photo that the files name, sorted by name."""
    rows: dict[str, PhotoRow] = {}
    if found.database:
        with found.noting():
            counts, sizes = found.database.keypoint_counts(), found.database.sizes()
            for image in found.database.images:
                size = sizes.get(image.camera_id, (0, 0))
                rows[image.name] = PhotoRow(
                    image.name, *size, keypoints=counts[image.image_id], image_id=image.image_id
                )
    elif found.features:
        with found.noting():
            for name in found.features.names():
                size = found.features.image_size(name)
                rows[name] = PhotoRow(name, *size, keypoints=found.features.record(name).keypoints)
    failed = [entry.name for entry in found.errors if _is_photo(entry)]
    for name in [*found.orientations, *failed]:
        rows.setdefault(name, PhotoRow(name))
    for row in rows.values():
        row.orientation = _orientation(found, row.name)
    return [rows[name] for name in sorted(rows)]


def _is_photo(entry: Entry) -> bool:
    return entry.stage in ("crawl", "orient", "extract") and not entry.name.endswith("/")


def _orientation(found: Contents, name: str) -> int:
    """How a photo was turned for extraction. Keypoints are in pixels as stored, thumbnails are upright."""
    if found.features and name in found.features:
        with found.noting():
            return found.features.orientation(name)
    code = found.orientations.get(name, 1)
    return code if code in ORIENTATIONS else 1


def explain_photos(found: Contents, rows: Sequence[PhotoRow], models: Sequence[Model]) -> None:
    """Give the photos that are not in the largest model the cause, the reason and the advice.

    Before mapping, and if no model can be read, only those that failed have one.
    """
    by_name = {row.name: row for row in rows}
    missing = _failed(found, by_name)
    if found.is_mapped and found.database and (models or not found.models):
        with found.noting():
            missing += [photo for photo in _left_out(found, rows) if photo.name not in {m.name for m in missing}]
    rerun, result = found.rerun(), _as_result(found, rows, models, missing)
    for photo in missing:
        row = by_name[photo.name]
        row.cause, row.reason, row.advice = photo.cause, photo.reason, advice_on(photo, result, rerun)


def _failed(found: Contents, by_name: dict[str, PhotoRow]) -> list[Unregistered]:
    """The photos of the ledger, under the names that the rows have."""
    reasons = {
        entry.name: entry for entry in found.errors if entry.name in by_name and by_name[entry.name].model is None
    }
    told = {photo.name for photo in failed_photos(found.files.root, found.photos)} if found.photos else set()
    return [
        Unregistered(name, "failed", f"failed ({entry.stage}): {entry.reason}")
        for name, entry in reasons.items()
        if _is_photo(entry) or name in told
    ]


def _left_out(found: Contents, rows: Sequence[PhotoRow]) -> tuple[Unregistered, ...]:
    assert found.database
    counts = found.database.keypoint_counts()
    if not counts:
        return ()
    numbers = sorted({row.model for row in rows if row.model is not None})
    registered = [[row.image_id for row in rows if row.model == number and row.image_id] for number in numbers]
    rerun = found.rerun()
    left_out = find_unregistered(found.database, counts, registered, rerun.photos, rerun.settings)
    pairs_file = recorded_paths(found.files.root).get("pairs", found.files.pairs)
    return explain(left_out, recorded_figures(found.files.root, "import").get("unpaired", ()), pairs_file.name)


def _as_result(
    found: Contents, rows: Sequence[PhotoRow], models: Sequence[Model], missing: Sequence[Unregistered]
) -> Reconstruction:
    """The figures that advice depends on, from the files."""
    images = [row for row in rows if row.image_id is not None]
    matched, inliers = ([], []) if not found.database else _pair_counts(found)
    sizes = {(row.width, row.height) for row in images}
    return Reconstruction(
        images=len(images),
        images_with_keypoints=sum(bool(row.keypoints) for row in images),
        matched_pairs=len(matched),
        verified_pairs=len(inliers),
        most_inliers=max(inliers, default=0),
        most_keypoints=max((row.keypoints or 0 for row in images), default=0),
        longest_side=max((max(size) for size in sizes), default=0),
        cameras=len(found.database.sizes()) if found.database else 0,
        one_size=len(sizes) == 1,
        models=tuple(models),
        unregistered=tuple(missing),
        seconds_verification=0.0,
        seconds_mapping=0.0,
    )


def _pair_counts(found: Contents) -> tuple[list[int], list[int]]:
    assert found.database
    with found.noting():
        return found.database.read_num_matches()[1], found.database.read_two_view_geometry_num_inliers()[1]
    return [], []


def overall_advice(found: Contents, rows: Sequence[PhotoRow], models: Sequence[Model]) -> str:
    """Return the advice on the run as a whole; empty before mapping and if all is well."""
    if not found.is_mapped:
        return ""
    missing = [Unregistered(row.name, row.cause, row.reason or "") for row in rows if row.cause]  # type: ignore[arg-type]
    return advice(replace(_as_result(found, rows, models, missing), doubtful=()), found.rerun())


def as_values(row: PhotoRow) -> dict[str, Any]:
    """The row as plain values for report.json."""
    return {key: value for key, value in vars(row).items() if key != "image_id"}
