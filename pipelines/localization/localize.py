"""Poses of new photos in a finished model, which stays as it is: `lgbatch localize`.

A photo is extracted as the photos of the workspace were, and matched with registered ones: with all, or with those that
look most alike. Matches with keypoints that observe a 3D point give its pose. A photo without enough evidence is tried
once more in each other quarter turn.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from lgbatch.colmap.log import colmap_log_off
from lgbatch.colmap.sensors.exif import read_exif
from lgbatch.config import Settings
from lgbatch.errors import InputError, ItemError
from lgbatch.export.models import ensure_models
from lgbatch.features.extractors import open_feature_extractor
from lgbatch.features.network import Extractor
from lgbatch.features.sift import SiftExtractor
from lgbatch.matching.engine import match_pairs, open_matchers
from lgbatch.matching.lightglue import Matcher
from lgbatch.photos.coordinates import rotated
from lgbatch.photos.decode import decode
from lgbatch.photos.metadata import read_metadata
from lgbatch.pipelines.localization.pose import Correspondences, Estimate, estimate_pose
from lgbatch.pipelines.localization.queries import Queries, find_queries
from lgbatch.pipelines.localization.references import Reference, References
from lgbatch.pipelines.localization.results import Localization, Localized
from lgbatch.pipelines.localization.write import add_to_model, write_poses
from lgbatch.reconstruction.evaluation.formats.colmap_model import find_model, read_model
from lgbatch.runtime.packages import require_pycolmap
from lgbatch.runtime.precision import extractor_kind, stages_kind
from lgbatch.runtime.registry import default_folder
from lgbatch.storage.features import FeatureStore
from lgbatch.types import ORIENTATIONS, Failure, Features, ImageRef, Matches, Pair
from lgbatch.workspace.folder import Workspace
from lgbatch.workspace.progress import track
from lgbatch.workspace.stage_cache import recorded_settings

NEIGHBOURS = 20
"""Registered photos that a photo is matched with, if there are more than 40."""
_QUERY = "\n"
"""Name of the photo among the registered ones: no file has it."""
_OTHER_TURNS = (180, 90, 270)


def localize(
    workspace: Workspace,
    photos: Sequence[Path],
    *,
    output: Path | None = None,
    model: Path | None = None,
    models: Path | None = None,
    image_folder: Path | None = None,
    neighbours: int = NEIGHBOURS,
    add: bool = False,
) -> Localization:
    """Find the poses of photos in a model of a workspace: sparse/0, or that in the folder `model`.

    Writes poses.json, poses.txt and the model queries/ to `output`, by default the folder localized of the workspace.
    With `add`, also added/: a copy of the model with the photos and new points in it, in which the other poses are as
    before. Photos that cannot be read, or have too little evidence, are told.

    Raises InputError if there is no model, no photo, or the features are not those of the model; ModelError and
    ReconstructionError.
    """
    require_pycolmap()
    folder = find_model(model or workspace.root)
    if not workspace.features.is_file():
        raise InputError(f"there is no {workspace.features}: give a workspace with the features of the model's photos")
    with FeatureStore(workspace.features) as features, colmap_log_off():
        photo_folder = image_folder or features.image_folder
        settings = recorded_extraction(workspace, features)
        reconstruction = read_model(folder)
        references = References(reconstruction, features, photo_folder if photo_folder else None)
        queries = find_queries(photos, photo_folder, [reference.name for reference in references.images])
        if add:
            _check_names(queries, references)
        found, failures = _localize_all(queries, references, settings, models or default_folder(), neighbours)
    output = output or workspace.root / "localized"
    result = Localization(
        folder=output, photos=found, failures=[*queries.failures, *failures], registered=queries.registered
    )
    write_poses(result, reconstruction)
    if add and any(photo.pose is not None for photo in found):
        result = replace(result, added=add_to_model(result, reconstruction, folder, queries.folder))
    return result


def recorded_extraction(workspace: Workspace, features: FeatureStore) -> Settings:
    """The settings by which the features of a workspace were extracted and matched, without masks."""
    entries = sorted(features.provenances.values(), key=lambda entry: -entry["items"])
    by = entries[0]["by"] if entries else {}
    recorded = recorded_settings(workspace.root)
    kept = {f.name for f in fields(Settings)} & {*Settings().used_by("orient", "extract", "match")}
    values = {name: value for name, value in recorded.items() if name in kept and name not in ("masks", "camera_mask")}
    own = {name: by[name] for name in ("extractor", "max_keypoints", "resize") if name in by}
    return Settings.load(**values | own)


def _check_names(queries: Queries, references: References) -> None:
    """Raise InputError if a photo has the name of another one that is in the model."""
    taken = {reference.name for reference in references.images}
    for ref in queries.refs:
        if ref.name in taken:
            raise InputError(f"the model has another photo {ref.name}: rename the new one, or leave out --add")


def _localize_all(
    queries: Queries, references: References, settings: Settings, models: Path, neighbours: int
) -> tuple[list[Localized], list[Failure]]:
    found: list[Localized] = []
    failures: list[Failure] = []
    if not queries.refs:
        return found, failures
    ensure_models(models, settings.extractor, [extractor_kind(settings), stages_kind(settings)])
    localizer = _Localizer(
        references, settings, open_feature_extractor(models, settings), open_matchers(models, settings), neighbours
    )
    for ref in track(queries.refs, "localize", total=len(queries.refs), unit="photo"):
        try:
            found.append(localizer.localize(ref))
        except (ItemError, MemoryError) as error:
            failures.append(Failure.from_exception("localize", ref.name, error))
    return found, failures


@dataclass(frozen=True)
class _Localizer:
    references: References
    settings: Settings
    extractor: Extractor | SiftExtractor
    matchers: Sequence[Matcher]
    neighbours: int

    def localize(self, ref: ImageRef) -> Localized:
        """Localize a photo. Raises ItemError if it cannot be read."""
        best: Localized | None = None
        for orientation in self._orientations(ref):
            found = self._try(replace(ref, orientation=orientation))
            if best is None or len(found.inliers) > len(best.inliers) or found.pose is not None:
                best = found
            if best.pose is not None:
                break
        assert best is not None
        return best

    def _orientations(self, ref: ImageRef) -> Iterator[int]:
        """The turns to try: as EXIF says, then by quarters from that, as --rotation allows."""
        metadata = read_metadata(ref.path) if self.settings.rotation != "none" else None
        tag = metadata.orientation if metadata and metadata.orientation in ORIENTATIONS else 1
        yield tag or 1
        if self.settings.rotation == "auto":
            yield from (rotated(tag or 1, degrees) for degrees in _OTHER_TURNS)

    def _try(self, ref: ImageRef) -> Localized:
        photo = decode(ref, self.settings.resize, self.settings.max_megapixels)
        features = self.extractor.extract([photo])[0]
        keypoints = np.asarray(features.keypoints, np.float64) + 0.5
        (exif,) = read_exif([ref.path])
        camera, is_known = self.references.camera(exif, photo.size)
        matches = dict(self._matches(features))
        scale = max(photo.size) / max(photo.pixels.shape[:2])
        found = self._correspondences(matches)
        estimate: Estimate = estimate_pose(self.references.model, camera, keypoints, found, scale, is_known)
        return Localized(
            name=ref.name,
            pose=estimate.pose,
            camera=camera,
            is_known=is_known,
            correspondences=estimate.correspondences,
            inliers=estimate.inliers,
            keypoints=keypoints,
            matches=matches if estimate.pose is not None else {},
            orientation=ref.orientation,
            reason=estimate.reason,
        )

    def _matches(self, query: Features) -> Iterator[tuple[str, Matches]]:
        """Match a photo with registered ones. Yields their names and the matches."""
        chosen = [r for r in self.references.candidates(query, self.neighbours) if (r.points >= 0).any()]
        counts = {reference.name: len(reference.points) for reference in chosen} | {_QUERY: len(query.keypoints)}

        def read(name: str) -> Features:
            return query if name == _QUERY else self.references.features.read(name)

        pairs = [Pair(_QUERY, reference.name) for reference in chosen]
        for pair, outcome in match_pairs(pairs, counts, read, self.matchers):
            if isinstance(outcome, Matches):
                yield pair.b, outcome

    def _correspondences(self, matches: dict[str, Matches]) -> Correspondences:
        of: dict[str, Reference] = {reference.name: reference for reference in self.references.images}
        rows = [np.zeros((0, 2), np.int64)]
        for name, found in matches.items():
            points = of[name].points[found.indices[:, 1]]
            rows.append(np.column_stack([found.indices[:, 0], points])[points >= 0])
        keypoints, points = np.unique(np.concatenate(rows), axis=0).T
        return Correspondences(keypoints, points)
