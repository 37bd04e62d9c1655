"""A model as a recording of Rerun, whose viewer shows it: points, cameras with their photos, and the tracks of each.

The timeline "photo" has a step for each photo, at which `model/tracks` has the points that the photo observes. Photos
are shown at a long side of 1024 pixels, as stored, with the points' observations on them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from lgbatch.errors import InputError, ItemError, WorkspaceError
from lgbatch.interchange.source import ModelSource
from lgbatch.photos.decode import decode
from lgbatch.reconstruction.evaluation.formats.colmap_model import read_model
from lgbatch.runtime.packages import require_pycolmap
from lgbatch.types import ByteArray, Failure, ImageRef, counted
from lgbatch.workspace.progress import track

if TYPE_CHECKING:
    import pycolmap

LONG_SIDE = 1024
"""Long side of the photos in a recording, in pixels."""
_QUALITY = 85


@dataclass(frozen=True)
class Viewed:
    """What a recording shows."""

    file: Path | None
    """The recording; None if the viewer was opened."""
    images: int
    points: int
    failures: tuple[Failure, ...]
    """Photos that cannot be read: their cameras are shown without them."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        failures = [{"name": failure.name, "reason": failure.reason} for failure in self.failures]
        file = None if self.file is None else str(self.file)
        return {"file": file, "images": self.images, "points": self.points, "failures": failures}

    def format(self) -> str:
        """Describe it in a line, after a line for each failure."""
        lines = [failure.format() for failure in self.failures]
        shown = f"{counted(self.images, 'camera')} and {counted(self.points, 'point')}"
        return "\n".join([*lines, f"{self.file or 'the viewer of Rerun'}: {shown}"])


def view(source: ModelSource, output: Path | None) -> Viewed:
    """Write a recording of a model to the file `output` or, without one, show it in Rerun's viewer.

    Raises InputError if Rerun is not installed, or there is no model or no folder of photos, and WorkspaceError if the
    file cannot be written.
    """
    require_pycolmap()
    try:
        import rerun
    except ImportError:
        raise InputError("`lgbatch view` needs Rerun: pip install 'lgbatch[view]'") from None
    photos, model = source.photo_folder(), read_model(source.model)
    recording = rerun.RecordingStream("lgbatch")
    if output is None:
        recording.spawn()
    else:
        _check_writable(output)
        recording.save(output)
    images = sorted((image for image in model.images.values() if image.has_pose), key=lambda image: image.name)
    _log_points(rerun, recording, model)
    failures = []
    for step, image in enumerate(track(images, "view", total=len(images), unit="image")):
        try:
            pixels = _read(photos, image.name, image.name in source.mirrored)
        except ItemError as error:
            pixels = None
            failures.append(Failure.from_exception("view", image.name, error))
        camera = model.cameras[image.camera_id]
        _log_camera(rerun, recording, image, camera, pixels)
        recording.set_time("photo", sequence=step)
        _log_tracks(rerun, recording, model, image, min(1.0, LONG_SIDE / max(camera.width, camera.height)))
    recording.flush()
    return Viewed(output, len(images), len(model.points3D), tuple(failures))


def _check_writable(output: Path) -> None:
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.open("wb").close()
    except OSError as error:
        raise WorkspaceError(f"cannot write {output}: {error.strerror}; choose another file with --output") from None


def _log_points(rerun: Any, recording: Any, model: "pycolmap.Reconstruction") -> None:
    """The points in their colours, in the world of the model."""
    points = list(model.points3D.values())
    positions = np.array([point.xyz for point in points], np.float32).reshape(-1, 3)
    colors = np.array([point.color for point in points], np.uint8).reshape(-1, 3)
    recording.log("model/points", rerun.Points3D(positions, colors=colors), static=True)


def _log_camera(
    rerun: Any, recording: Any, image: "pycolmap.Image", camera: "pycolmap.Camera", pixels: ByteArray | None
) -> None:
    """The camera of an image, as a pinhole without distortion, with its photo."""
    path, pose = _path(image), image.cam_from_world().inverse().matrix()
    width, height = (camera.width, camera.height) if pixels is None else pixels.shape[1::-1]
    calibration = np.diag(np.array([width / camera.width, height / camera.height, 1.0])) @ camera.calibration_matrix()
    recording.log(path, rerun.Transform3D(translation=pose[:, 3], mat3x3=pose[:, :3]), static=True)
    pinhole = rerun.Pinhole(image_from_camera=calibration, resolution=[width, height])
    recording.log([*path, "photo"], pinhole, static=True)
    if pixels is not None:
        _, data = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        encoded = rerun.EncodedImage(contents=data.tobytes(), media_type="image/jpeg")
        recording.log([*path, "photo"], encoded, static=True)


def _log_tracks(
    rerun: Any, recording: Any, model: "pycolmap.Reconstruction", image: "pycolmap.Image", scale: float
) -> None:
    """The points that an image observes, and where it does, in pixels of its photo, which is shown at this scale."""
    observed = [point for point in image.points2D if point.has_point3D()]
    points = [model.points3D[point.point3D_id] for point in observed]
    colors = np.array([point.color for point in points], np.uint8).reshape(-1, 3)
    pixels = np.array([point.xy for point in observed], np.float32).reshape(-1, 2) * scale
    positions = np.array([point.xyz for point in points], np.float32).reshape(-1, 3)
    recording.log([*_path(image), "photo", "observations"], rerun.Points2D(pixels, colors=colors), static=True)
    recording.log("model/tracks", rerun.Points3D(positions, colors=[255, 160, 0]))


def _path(image: "pycolmap.Image") -> list[str]:
    return ["model", "cameras", image.name]


def _read(photos: Path, name: str, is_mirrored: bool) -> ByteArray:
    """The pixels of a photo as stored, or mirrored back as the model has them. Raises ItemError."""
    pixels = decode(ImageRef(name, photos / name), LONG_SIDE).pixels
    return np.ascontiguousarray(pixels[:, ::-1]) if is_mirrored else pixels
