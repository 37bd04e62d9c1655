"""The evaluation of a model in a folder against ground truth in files, and once more with given intrinsics."""

import sqlite3
from collections.abc import Collection, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lgbatch.colmap.log import colmap_log_off
from lgbatch.colmap.sensors.calibration import KnownCamera as Intrinsics
from lgbatch.colmap.sensors.calibration import read_calibration
from lgbatch.colmap.sqlite import uri
from lgbatch.config import Settings
from lgbatch.errors import InputError, ReconstructionError
from lgbatch.photos.crawl import crawl
from lgbatch.reconstruction.evaluation.evaluate import Accuracy, compare
from lgbatch.reconstruction.evaluation.formats.colmap_model import find_model, model_poses, read_model
from lgbatch.reconstruction.evaluation.names import match
from lgbatch.reconstruction.evaluation.read_truth import read_truth
from lgbatch.reconstruction.evaluation.truth import Array, Known
from lgbatch.reconstruction.progress import run_timed
from lgbatch.reconstruction.subprocess_worker import Message
from lgbatch.runtime.packages import require_pycolmap
from lgbatch.types import escape
from lgbatch.workspace.folder import Workspace

Counted = Literal["photos", "truth", "registered"]
_WORKER = "lgbatch.reconstruction.evaluation.worker"
OF_TRUTH = "truth"
"""The value of `intrinsics` that means those of the ground truth."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The accuracy of a model. Lists have names of images, or of ground truth that has no image."""

    model: Path
    kind: str
    """The format of the ground truth, in words."""
    cameras: int
    """Cameras of the ground truth."""
    skipped: int
    """Entries of the ground truth without a pose."""
    accuracy: Accuracy
    reprojection: float
    """Mean reprojection error in pixels."""
    adjusted: Accuracy | None
    """The accuracy after adjustment to the given intrinsics."""
    adjusted_reprojection: float | None
    with_intrinsics: int
    """Images that intrinsics were given for."""
    unregistered: tuple[str, ...]
    """Known cameras that the model does not register."""
    ambiguous: tuple[str, ...]
    """Names or times that several cameras or images have: not evaluated."""
    not_counted: int
    """Cameras of other photos."""
    without_truth: int
    """Registered images without ground truth."""
    counted: Counted
    """The cameras that count: those of the photos; if these are unknown, all of the ground truth or, of a trajectory,
    those of registered images."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {
            "model": str(self.model),
            "truth": {"format": self.kind, "cameras": self.cameras, "without_pose": self.skipped},
            "accuracy": self.accuracy.as_dict() | {"mean_reprojection_error": self.reprojection},
            "given_intrinsics": self.adjusted.as_dict()
            | {"mean_reprojection_error": self.adjusted_reprojection, "images": self.with_intrinsics}
            if self.adjusted
            else None,
            "unregistered": list(self.unregistered),
            "ambiguous": list(self.ambiguous),
            "cameras_of_other_photos": self.not_counted,
            "images_without_truth": self.without_truth,
            "counted": self.counted,
        }


def run(
    model: Path, truth: Path, *, photos: Path | None = None, intrinsics: str | None = None, progress: bool = False
) -> Evaluation:
    """Compare a model with ground truth.

    `model` is a folder of a COLMAP model, or a workspace, whose largest model is meant; `truth` is a folder or file
    that `read_truth` reads. Only cameras of the photos count: those in the folder `photos`, by default the images of
    the workspace's database. With `intrinsics`, "truth" or the path of a cameras.txt, poses and points are also
    adjusted to these intrinsics, in a child process.

    Raises InputError if there is no model or no ground truth, if no camera belongs to an image, or if intrinsics are
    missing, and ReconstructionError if the adjustment fails.
    """
    require_pycolmap()
    folder, known = find_model(model), read_truth(truth)
    with colmap_log_off():
        reconstruction = read_model(folder)
    poses = model_poses(reconstruction)
    names = _photo_names(folder, photos)
    found = match(known, poses if names is None else names)
    if not found.camera_of:
        raise InputError(_no_match(truth, known.cameras, folder, poses))
    cameras = {image: known.cameras[name] for image, name in found.camera_of.items()}
    counted: Counted = "photos" if names is not None else "truth" if known.times is None else "registered"
    if counted == "truth":
        cameras |= {name: known.cameras[name] for name in found.absent}
    given = _intrinsics(cameras, poses, truth, intrinsics) if intrinsics else {}
    adjusted = _adjust(folder, given, progress) if given else None
    return Evaluation(
        model=folder,
        kind=known.kind,
        cameras=len(known.cameras),
        skipped=known.skipped,
        accuracy=compare(poses, cameras),
        reprojection=reconstruction.compute_mean_reprojection_error(),
        adjusted=compare(adjusted[0], cameras) if adjusted else None,
        adjusted_reprojection=adjusted[1] if adjusted else None,
        with_intrinsics=len(given),
        unregistered=tuple(name for name in cameras if name not in poses),
        ambiguous=found.ambiguous,
        not_counted=0 if counted == "truth" else len(found.absent),
        without_truth=len(poses.keys() - cameras.keys()),
        counted=counted,
    )


def _photo_names(model: Path, photos: Path | None) -> list[str] | None:
    """The names of the photos in a folder, or of the images of the workspace that a model is in, if it is in one."""
    if photos:
        return [ref.name for ref in crawl(photos).images]
    for folder in model.absolute().parents:
        database = Workspace(folder).database
        if model.absolute().is_relative_to(Workspace(folder).sparse) and database.is_file():
            # immutable=1: neither locks nor files beside the database, which COLMAP needs to open it.
            with closing(sqlite3.connect(f"{uri(database)}?immutable=1", uri=True)) as connection:
                try:
                    return [name for (name,) in connection.execute("SELECT name FROM images ORDER BY image_id")]
                except sqlite3.Error:
                    raise InputError(f"cannot read {database}: give the photos of the model, with --photos") from None
    return None


def _no_match(truth: Path, cameras: Collection[str], model: Path, poses: Collection[str]) -> str:
    first, second = (escape(next(iter(names), "none")) for names in (cameras, poses))
    return (
        f"no camera of {truth} (such as {first}) belongs to an image of {model} (such as {second}): compare the names"
    )


def _intrinsics(
    cameras: Mapping[str, Known], poses: Collection[str], truth: Path, source: str
) -> dict[str, Intrinsics]:
    """The intrinsics of the registered known cameras, by name."""
    registered = [name for name in cameras if name in poses]
    if source == OF_TRUTH:
        given = {name: found for name in registered if (found := cameras[name].intrinsics)}
        if registered and not given:
            raise InputError(f"{truth} has no intrinsics: give a cameras.txt, as for `lgbatch run --calibration`")
        return given
    calibration = read_calibration(Settings(calibration=source))
    return {name: calibration.camera(name) for name in registered} if calibration else {}


def _adjust(model: Path, given: Mapping[str, Intrinsics], progress: bool) -> tuple[dict[str, Array], float]:
    """Adjust a model to intrinsics, in a child process. Returns its poses and mean reprojection error in pixels."""
    request: Message = {
        "model": str(model),
        "intrinsics": {name: [camera.model, camera.params, camera.size] for name, camera in given.items()},
        "threads": 0,
    }
    try:
        result = run_timed(_WORKER, request, "adjust", shown=progress)
    except RuntimeError as error:
        reason = escape(str(error).partition("\n")[0])
        raise ReconstructionError(f"cannot adjust {model} to the intrinsics: {reason}") from None
    return {name: np.array(pose) for name, pose in result["poses"].items()}, result["mean_reprojection_error"]
