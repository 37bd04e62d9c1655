"""The child process that undistorts photos: `python -m lgbatch.interchange.undistort_worker`. Started by undistort.py.

COLMAP aborts its process if it cannot write, or if the memory is short.
"""

import filecmp
import json
import os
import shutil
import zlib  # noqa: F401  before pycolmap, whose symbols would shadow it
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path, PurePath

import cv2
import numpy as np
import pycolmap
import simplejpeg
from PIL import Image

from lgbatch.errors import ItemError
from lgbatch.interchange.models import set_aside_exports
from lgbatch.interchange.names import RECORD, written_names
from lgbatch.interchange.undistorted_model import Options, undistorted_camera, undistorted_model
from lgbatch.photos.coordinates import MIRROR, turn
from lgbatch.photos.decode import decode
from lgbatch.photos.formats import suffix
from lgbatch.photos.masks import read_masks
from lgbatch.reconstruction.subprocess_worker import Message, Report, serve
from lgbatch.runtime.environment import available_cores, available_memory
from lgbatch.storage.durable import replace_synced
from lgbatch.types import BoolArray, ByteArray, Failure, ImageRef
from lgbatch.workspace.prefetch import prefetch
from lgbatch.workspace.stage_cache import digest, signature

IMAGES, MASKS, SPARSE = "images", "masks", "sparse"
_QUALITY = 95  # of JPEG, without chroma subsampling
_BYTES_PER_PIXEL = {"png": 1.8, "jpg": 0.4, "jpeg": 0.4}
_MEMORY_PER_PIXEL = 16
_LONGEST_SEGMENT = 65533
_ORIENTATION = 0x112  # EXIF tag


@dataclass(frozen=True)
class _Job:
    """A photo to undistort."""

    photo: ImageRef
    written: str
    """Its name in the folder of the undistorted images."""
    camera: pycolmap.Camera
    mirrored: bool
    state: str
    """Digest of all that its image depends on."""


def _work(request: Message, report: Report) -> Message:
    """Undistort the photos of a model.

    Keys of the request:
        model         its folder
        photos        folder of the photos
        mirrored      names of the images whose pixels are to be mirrored, left and right
        masks         files of masks by image name; empty: no masks are written
        flat          whether all images go to one folder
        out           folder to write to
        log           whether to print COLMAP's whole log

    Progress messages: {"planned": number of images, "bytes": about what they need, "present": those that an earlier
    call wrote} and {"undistorted": 1}. The result: {"images", "new", "points", "notes": [line, ...],
    "failures": [fields of Failure, ...]}.
    """
    if not request["log"]:
        pycolmap.logging.minloglevel = int(pycolmap.logging.ERROR)
    try:
        model, out = pycolmap.Reconstruction(request["model"]), Path(request["out"])
    except (RuntimeError, ValueError, IndexError, MemoryError):
        raise ValueError("the files of the model are damaged") from None
    if not (images := [image for image in model.images.values() if image.has_pose]):
        raise ValueError("the model has no registered images")
    if not any(Path(request["photos"], image.name).is_file() for image in images):
        raise ValueError(f"no photo of the model is in {request['photos']}: give their folder with --images")
    failures: list[Failure] = []
    cameras = _cameras(model, failures)
    jobs = _jobs(model, cameras, request, failures)
    missing = _prepare(out, jobs)
    report(
        {"planned": len(jobs), "present": len(jobs) - len(missing), "bytes": _bytes(missing, bool(request["masks"]))}
    )
    undistort = partial(_undistort, out=out, masked=bool(request["masks"]))
    threads = _threads(missing)
    for job, reason in zip(missing, prefetch(undistort, missing, threads=threads, depth=2 * threads), strict=True):
        if reason:
            failures.append(Failure("undistort", job.photo.name, reason))
        report({"undistorted": 1})
    failed = {failure.name for failure in failures}
    names = {job.photo.name: job.written for job in jobs if job.photo.name not in failed}
    points, notes = _write_model(undistorted_model(model, cameras, names), out)
    return {
        "images": len(names),
        "new": sum(job.photo.name not in failed for job in missing),
        "points": points,
        "notes": notes,
        "failures": [asdict(failure) for failure in failures],
    }


def _cameras(model: pycolmap.Reconstruction, failures: list[Failure]) -> dict[int, pycolmap.Camera]:
    """The undistorted cameras by id. Adds the images of the others to the failures."""
    cameras: dict[int, pycolmap.Camera] = {}
    reasons: dict[int, str] = {}
    for camera_id, camera in model.cameras.items():
        try:
            cameras[camera_id] = undistorted_camera(camera)
        except ItemError as error:
            reasons[camera_id] = str(error)
    for image in model.images.values():
        if image.has_pose and image.camera_id in reasons:
            failures.append(Failure("undistort", image.name, reasons[image.camera_id]))
    return cameras


def _jobs(
    model: pycolmap.Reconstruction, cameras: Mapping[int, pycolmap.Camera], request: Message, failures: list[Failure]
) -> list[_Job]:
    """The photos that have undistorted cameras. Adds those that cannot be written to the failures."""
    images = {image.name: image for image in model.images.values() if image.has_pose and image.camera_id in cameras}
    for name in [name for name in images if _leaves_folder(name) and not request["flat"]]:
        failures.append(Failure("undistort", name, "its name leads out of the folder: use --flat"))
        del images[name]
    mirrored, jobs = set(request["mirrored"]), []
    for name, written in sorted(written_names(images, flat=request["flat"]).items()):
        path, masks = Path(request["photos"], name), tuple(map(Path, request["masks"].get(name, ())))
        camera = model.cameras[images[name].camera_id]
        parts = [camera.model_name, camera.width, camera.height, *map(float, camera.params), name in mirrored]
        state = digest([name, *parts, *map(signature, (path, *masks)), bool(request["masks"])])
        jobs.append(_Job(ImageRef(name, path, masks), written, camera, name in mirrored, state))
    return jobs


def _leaves_folder(name: str) -> bool:
    path = PurePath(name)
    return path.is_absolute() or ".." in path.parts


def _prepare(out: Path, jobs: list[_Job]) -> list[_Job]:
    """Remove what an earlier call wrote and this one does not, record the jobs, and return those to do.

    An image is written under a name of its own first: one that is there, with the same state, is complete.
    """
    try:
        before: dict[str, str] = json.loads((out / RECORD).read_bytes())["images"]
    except (OSError, ValueError, KeyError, TypeError):
        before = {}
    now = {job.written: job.state for job in jobs}
    for written, state in before.items():
        if now.get(written) != state:
            (out / IMAGES / written).unlink(missing_ok=True)
            (out / MASKS / f"{written}.png").unlink(missing_ok=True)
    for folder in out / IMAGES, out / MASKS:
        for partial_file in folder.rglob(".*.new"):  # of a killed call
            partial_file.unlink()
    missing = [job for job in jobs if not (out / IMAGES / job.written).is_file()]
    if missing or before != now:  # the model is written last: it tells that the folder is complete
        shutil.rmtree(out / SPARSE, ignore_errors=True)
    replace_synced(out / RECORD, json.dumps({"images": now}).encode())
    return missing


def _undistort(job: _Job, out: Path, masked: bool) -> str:
    """Write an undistorted photo, and its mask before it. Returns why that cannot be done, or an empty string."""
    try:
        photo = decode(job.photo, 0)
        size = job.camera.width, job.camera.height
        if photo.size != size:
            raise ItemError(f"is {photo.size[0]}x{photo.size[1]}, but its camera {size[0]}x{size[1]}: map it again")
        masks = (*photo.masks, *read_masks(job.photo, size)) if masked else ()
    except ItemError as error:
        return str(error)
    if masked:
        _write(out / MASKS / f"{job.written}.png", _png(_undistorted_mask(masks, job)))
    pixels = _undistorted(turn(photo.pixels, MIRROR) if job.mirrored else photo.pixels, job.camera)
    encode = _png if suffix(job.written) == "png" else partial(_jpeg, exif=_exif(job.photo.path))
    _write(out / IMAGES / job.written, encode(pixels))
    return ""


def _undistorted(pixels: ByteArray, camera: pycolmap.Camera) -> ByteArray:
    bitmap, _ = pycolmap.undistort_image(Options(), pycolmap.Bitmap.from_array(pixels), camera)
    return np.asarray(bitmap.to_array(), np.uint8)


def _undistorted_mask(masks: tuple[BoolArray, ...], job: _Job) -> ByteArray:
    """The mask (H, W) of the undistorted image: 0 where one of the photo's masks is black, or no pixel is known."""
    size = job.camera.width, job.camera.height
    kept = np.full(size[::-1], 255, np.uint8)
    for mask in masks:
        kept &= cv2.resize(mask.astype(np.uint8) * 255, size, interpolation=cv2.INTER_NEAREST)
    undistorted = _undistorted(turn(kept, MIRROR) if job.mirrored else kept, job.camera)
    return np.where(undistorted > 127, np.uint8(255), np.uint8(0)).squeeze()


def _exif(photo: Path) -> bytes:
    """The EXIF of a photo without its orientation: the written pixels are not to be turned. Empty if there is none."""
    try:
        with Image.open(photo) as image:
            exif = image.getexif()
            exif.pop(_ORIENTATION, None)
            return exif.tobytes() if len(exif) else b""
    except Exception:  # Pillow raises many types on damaged metadata, and does not read raw photos
        return b""


def _jpeg(pixels: ByteArray, exif: bytes) -> bytes:
    data = simplejpeg.encode_jpeg(pixels, quality=_QUALITY, colorsubsampling="444")
    if not 0 < len(exif) <= _LONGEST_SEGMENT:
        return bytes(data)
    return b"".join([data[:2], b"\xff\xe1", (len(exif) + 2).to_bytes(2, "big"), exif, data[2:]])


def _png(pixels: ByteArray) -> bytes:
    ordered = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", ordered)[1].tobytes()


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_synced(path, data)
    except OSError as error:
        raise OSError(f"{path.name}: {error.strerror}") from None


def _write_model(model: pycolmap.Reconstruction, out: Path) -> tuple[int, list[str]]:
    """Write a model as binary files to sparse/0 and as text to sparse/.

    The text is left out if a name has white space, at which readers end it. COLMAP does not report a full disk: the
    files are read again. Returns the number of points, and lines on files of another model that are set aside.
    """
    draft = out / f".{SPARSE}.new"
    shutil.rmtree(draft, ignore_errors=True)
    (draft / "0").mkdir(parents=True)
    model.write(draft / "0")
    as_text = all(len(image.name.split()) == 1 for image in model.images.values())
    if as_text:
        model.write_text(draft)
    points = model.num_points3D()
    for folder in [draft / "0", draft][: 1 + as_text]:
        try:
            complete = pycolmap.Reconstruction(folder).num_points3D() == points
        except (RuntimeError, ValueError, IndexError):
            complete = False
        if not complete:
            raise OSError("the model could not be written whole")
    notes = [] if _same_files(draft / "0", out / SPARSE / "0") else set_aside_exports(out)
    shutil.rmtree(out / SPARSE, ignore_errors=True)
    draft.rename(out / SPARSE)
    return points, notes


def _same_files(first: Path, second: Path) -> bool:
    """Whether all files of the first folder are in the second one, with the same content."""
    names = [path.name for path in first.iterdir()]
    return not any(filecmp.cmpfiles(first, second, names, shallow=False)[1:])


def _bytes(jobs: list[_Job], masked: bool) -> int:
    """About how much the images need, as far as photos are alike."""

    def sizes() -> Iterator[float]:
        for job in jobs:
            yield job.camera.width * job.camera.height * (_BYTES_PER_PIXEL[suffix(job.written)] + 0.02 * masked)

    return int(sum(sizes()))


def _threads(jobs: list[_Job]) -> int:
    """As many threads as there are cores, and as the memory allows."""
    largest = max((job.camera.width * job.camera.height for job in jobs), default=1)
    memory = available_memory()
    fitting = memory // 2 // (_MEMORY_PER_PIXEL * largest) if memory else available_cores()
    return max(1, min(available_cores(), int(fitting)))


if __name__ == "__main__":
    serve(_work, lambda: os._exit(1))
