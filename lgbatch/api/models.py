"""Work on finished models: the commands evaluate, georeference, triangulate, localize, undistort, convert and view."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from lgbatch.api.matching import photo_folder
from lgbatch.errors import InputError
from lgbatch.interchange.models import export_model
from lgbatch.interchange.source import find_source
from lgbatch.interchange.stores import Converted, export_stores, import_stores
from lgbatch.interchange.undistort import Undistorted
from lgbatch.interchange.undistort import undistort as undistort_model
from lgbatch.interchange.view import Viewed
from lgbatch.interchange.view import view as view_model
from lgbatch.pipelines.localization.localize import NEIGHBOURS
from lgbatch.pipelines.localization.localize import localize as localize_photos
from lgbatch.pipelines.localization.results import Localization
from lgbatch.reconstruction.evaluation import run as evaluation
from lgbatch.reconstruction.evaluation.run import Evaluation
from lgbatch.reconstruction.georeference.georeference import georeference as georeference_models
from lgbatch.reconstruction.georeference.results import Georeferenced
from lgbatch.reconstruction.known_poses.results import Triangulated
from lgbatch.reconstruction.known_poses.triangulate import triangulate as triangulate_matches
from lgbatch.storage.features import FeatureStore
from lgbatch.workspace.folder import Workspace
from lgbatch.workspace.lock import locked

Target = Literal["hloc", "colmap", "nerfstudio", "metashape", "bundler"]
Origin = Literal["hloc", "colmap"]


def evaluate(
    model: str | Path, truth: str | Path, *, photos: str | Path | None = None, intrinsics: str | Path | None = None
) -> Evaluation:
    """Compare a model with ground truth, as `lgbatch evaluate`: AUC of relative poses, position and rotation errors.

    `model` is the folder of a COLMAP model, or a workspace, whose largest model is meant. `truth` is a folder of
    Strecha's NAME.camera files, of a COLMAP model or of 4 x 4 poses, a transforms.json or a TUM trajectory. Only the
    cameras of the photos in the folder `photos` count, by default those of the images in the workspace's database. With
    `intrinsics`, "truth" or a file cameras.txt, the model is also evaluated after an adjustment with these.

    Raises LgbatchError if there is no model or no ground truth, no name is in both, or the adjustment fails.
    """
    given = None if intrinsics is None else str(intrinsics)
    return evaluation.run(Path(model), Path(truth), photos=_path(photos), intrinsics=given, progress=True)


def georeference(
    workspace: str | Path,
    *,
    positions: str | Path | None = None,
    gcp: str | Path | None = None,
    accuracy: float | None = None,
    position_priors: bool = False,
    photos: str | Path | None = None,
) -> Georeferenced:
    """Move the models of a workspace into a metric frame with x east, y north and z up, as `lgbatch georeference`.

    The positions are those in the EXIF of the photos, or of a file `positions`, or of ground control points in a file
    `gcp`, OpenDroneMap's gcp_list.txt. `accuracy` is their standard deviation in metres. With `position_priors`,
    cameras and points are adjusted to the positions. `photos` is the folder of the photos, by default that of the
    extraction. Positions in degrees and control points that are far from the EXIF of the photos are told as `weak`.

    Writes georeferenced/; sparse/ stays as it is. Raises LgbatchError if there is no model or no position.
    """
    files = Workspace(Path(workspace))
    if gcp and (positions or position_priors):
        raise InputError(f"--{'positions' if positions else 'position-priors'} has no effect with --gcp: leave one out")
    with locked(files.root):
        return georeference_models(
            files,
            photos=_path(photos) or _recorded_photos(files),
            positions=_path(positions),
            control_points=_path(gcp),
            accuracy=accuracy,
            adjust=position_priors,
            progress=True,
        )


def triangulate(workspace: str | Path, poses: str | Path, *, photos: str | Path | None = None) -> Triangulated:
    """Triangulate the matches of a workspace for cameras whose poses are known, as `lgbatch triangulate`.

    `poses` has known cameras in a format that `evaluate` reads as ground truth. They stay as they are. `photos` is the
    folder of the photos, by default that of the extraction. Writes triangulated/0; sparse/ stays as it is.

    Raises LgbatchError if there is no database, no image has a pose, or no match agrees with the poses.
    """
    files = Workspace(Path(workspace))
    with locked(files.root):
        with FeatureStore(files.features) as features:
            folder = photo_folder(photos, features)
        return triangulate_matches(files, Path(poses), folder, progress=True)


def localize(
    workspace: str | Path,
    photos: str | Path | Sequence[str | Path],
    *,
    output: str | Path | None = None,
    model: str | Path | None = None,
    models: str | Path | None = None,
    model_photos: str | Path | None = None,
    neighbours: int = NEIGHBOURS,
    add: bool = False,
) -> Localization:
    """Find the poses of new photos in a finished model, as `lgbatch localize`.

    `photos` are files, or folders of photos. They are extracted as those of the model were, and matched with them: with
    `neighbours` of them if the model has more than 40. The model is sparse/0, or that in the folder `model`; it stays
    as it is. `model_photos` is the folder of its photos, by default that of the extraction, and `models` the folder of
    the ONNX models. Writes poses.json, poses.txt and queries/ to `output`, by default localized/ in the workspace, and
    with `add` also added/, a copy of the model with the photos in it.

    Photos without a pose are in the result, with the reason. Raises LgbatchError if there is no model or no photo.
    """
    files = Workspace(Path(workspace))
    given = [photos] if isinstance(photos, str | Path) else photos
    with locked(files.root):
        return localize_photos(
            files,
            list(map(Path, given)),
            output=_path(output),
            model=_path(model),
            models=_path(models),
            image_folder=_path(model_photos),
            neighbours=neighbours,
            add=add,
        )


def undistort(
    source: str | Path,
    output: str | Path,
    *,
    model: int | None = None,
    photos: str | Path | None = None,
    flat: bool = False,
    masks: str | Path = "",
    camera_mask: str | Path = "",
) -> Undistorted:
    """Undistort the photos of a model into a new folder, for splat and NeRF trainers, as `lgbatch undistort`.

    `source` is a workspace, of which sparse/`model` is meant, by default the model with most images, or the folder of a
    COLMAP model. `photos` is the folder of its photos, by default that of the extraction; `masks` and `camera_mask` are
    as in Settings, by default those of the extraction. With `flat`, all photos are written into one folder. Images that
    an earlier call has written stay if nothing has changed.

    Photos that cannot be undistorted are in the result's `failures`. Raises LgbatchError if there is no model or no
    photo, or `output` has other files.
    """
    found = find_source(Path(source), model, _path(photos))
    return undistort_model(
        found, Path(output), masks=str(masks), camera_mask=str(camera_mask), flat=flat, progress=True
    )


def convert(
    source: str | Path,
    output: str | Path,
    *,
    to: Target | None = None,
    from_: Origin | None = None,
    photos: str | Path | None = None,
    matches: str | Path | None = None,
    extractor: str | None = None,
    model: int | None = None,
) -> Converted:
    """Convert a model for another program, or features and matches to and from other formats, as `lgbatch convert`.

    With `to`, `source` is a workspace, the folder of a COLMAP model, or that of `undistort`, and `output` a folder to
    write to; `model` is the number of the model in sparse/. With `from_`, `output` is a new workspace, and `source` is
    hloc's file of features or the folder of COLMAP's text files, `matches` the file of matches, `photos` the folder of
    the photos, and `extractor` that of hloc's features, if it is known.

    Images that cannot be converted are in the result's `failures`. Raises LgbatchError if the files cannot be read or
    written, or the format cannot hold them.
    """
    if (to is None) == (from_ is None):
        raise InputError("give one of --to and --from")
    if from_ is None and (matches or extractor):
        raise InputError(f"--{'matches' if matches else 'extractor'} has no effect without --from: leave it out")
    source, output = Path(source), Path(output)
    if from_ is not None:
        if photos is None:
            raise InputError("give the folder of the photos with --images")
        files = Workspace(output)
        return import_stores(source, files, from_, photos=Path(photos), matches=_path(matches), extractor=extractor)
    if to == "hloc" or to == "colmap":
        return export_stores(Workspace(source), output, to)
    assert to is not None
    return export_model(find_source(source, model, _path(photos)), output, to)


def view(
    source: str | Path,
    output: str | Path | None = None,
    *,
    model: int | None = None,
    photos: str | Path | None = None,
) -> Viewed:
    """Show a model in Rerun's viewer, or write a recording for it to the file `output`, as `lgbatch view`.

    The recording has the points, the cameras with their photos and, on the timeline "photo", the points that each photo
    observes. `source`, `model` and `photos` are as in `undistort`.

    Photos that cannot be read are in the result's `failures`. Raises LgbatchError if Rerun is not installed, there is
    no model, or the file cannot be written.
    """
    return view_model(find_source(Path(source), model, _path(photos)), _path(output))


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)


def _recorded_photos(files: Workspace) -> Path | None:
    if not files.features.is_file():
        return None
    with FeatureStore(files.features) as features:
        return features.image_folder
