"""Undistorted photos with pinhole cameras, as splat and NeRF trainers and multi-view stereo read them.

The folder has images/, masks/ if there are masks, sparse/0/ with the model in COLMAP's binary files, and sparse/ with
the same as text, unless names have spaces. pycolmap runs in a child process (undistort_worker.py).
"""

import logging
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lgbatch.errors import InputError, WorkspaceError
from lgbatch.interchange.names import RECORD
from lgbatch.interchange.source import ModelSource
from lgbatch.reconstruction.progress import Log
from lgbatch.reconstruction.subprocess_worker import Message, run_worker
from lgbatch.runtime.packages import require_pycolmap
from lgbatch.types import Failure, counted, escape
from lgbatch.workspace.lock import NAME, locked
from lgbatch.workspace.progress import Progress

_WORKER = "lgbatch.interchange.undistort_worker"


@dataclass(frozen=True)
class Undistorted:
    """The result of `undistort`."""

    model: Path
    """The model that was undistorted."""
    folder: Path
    images: int
    """Undistorted images of the folder."""
    new: int
    """Images that this call wrote."""
    points: int
    failures: tuple[Failure, ...]
    """Photos that could not be undistorted. The written model lacks them."""
    notes: tuple[str, ...] = ()
    """Files that `convert` wrote of another model of the folder, and that are set aside."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        failures = [{"name": failure.name, "reason": failure.reason} for failure in self.failures]
        return asdict(self) | {"model": str(self.model), "folder": str(self.folder), "failures": failures}

    def format(self) -> str:
        """Describe the folder in a line, after a line for each failure, and before the notes."""
        lines = [failure.format() for failure in self.failures]
        lines.append(
            f"{self.folder}: {counted(self.images, 'undistorted image')} ({self.new} new) and "
            f"{counted(self.points, 'point')} of {self.model}"
        )
        return "\n".join([*lines, *self.notes])


def undistort(
    source: ModelSource,
    out: Path,
    *,
    masks: str = "",
    camera_mask: str = "",
    flat: bool = False,
    progress: bool = False,
) -> Undistorted:
    """Undistort the photos of a model into the folder `out`, as COLMAP does, and write the model of these images.

    The pixels stay as stored: turned photos are not turned upright, and lose the EXIF orientation, which would turn
    them away from their cameras. Photos in formats that other programs do not read become PNG or JPEG (names.py, which
    also tells what `flat` does). Masks are those of the extraction, or are given; then each image has one, in masks/.

    Images that a call before has written stay if model, photo and masks are unchanged. Files that `convert` has written
    of another model are renamed (set_aside_exports). Raises InputError if there are
    no photos or `out` has other files, and WorkspaceError if a file cannot be written.
    """
    require_pycolmap()
    photos = source.photo_folder()
    _check_output(out, photos, source)
    request: Message = {
        "model": str(source.model),
        "photos": str(photos),
        "mirrored": sorted(source.mirrored),
        "masks": {name: list(map(str, files)) for name, files in source.masks(masks, camera_mask).items()},
        "flat": flat,
        "out": str(out),
    }
    with locked(out, create=True):
        try:
            result = _run(request, out, progress)
        except RuntimeError as error:
            reason = escape(str(error).partition("\n")[0])
            raise WorkspaceError(
                f"cannot undistort {source.model} into {out}: {reason}; check the model and free space, and run the "
                "command again: finished images are kept"
            ) from None
    failures = tuple(Failure(**fields) for fields in result["failures"])
    counts = result["images"], result["new"], result["points"]
    return Undistorted(source.model, out, *counts, failures, tuple(map(escape, result["notes"])))


def _check_output(out: Path, photos: Path, source: ModelSource) -> None:
    """Raise InputError if the folder has files that `undistort` has not written."""
    if out.is_dir() and not (out / RECORD).is_file() and any(file.name != NAME for file in out.iterdir()):
        raise InputError(f"{out} has other files: give a new folder for the undistorted photos")
    if out.resolve() == photos.resolve() or (out / "images").resolve() == photos.resolve():
        raise InputError(f"{out} is the folder of the photos: give a new folder for the undistorted photos")


def _run(request: Message, out: Path, shown: bool) -> Message:
    log = logging.getLogger("lgbatch").isEnabledFor(logging.DEBUG)
    steps: list[Progress] = []

    def on_message(message: Message | None) -> None:
        if message and "planned" in message:
            missing = message["planned"] - message["present"]
            if missing and shown:
                print(_space(missing, message["bytes"], out), file=sys.stderr)
            steps.append(Progress("undistort", total=missing, unit="image", shown=shown))
        elif steps:
            steps[0].update(message["undistorted"]) if message else steps[0].refresh()

    try:
        echo = Log(echo=True) if log else None
        return run_worker(_WORKER, request | {"log": log}, on_message, on_stderr=echo)
    finally:
        for step in steps:
            step.close()


def _space(images: int, needed: int, out: Path) -> str:
    """Tell about how much space the images need, and how much is free."""
    free = shutil.disk_usage(out).free
    short = "" if needed < free else ", which may not suffice"
    return (
        f"undistort: {counted(images, 'image')} will take about {needed / 1e9:.2g} GB; {free / 1e9:.3g} GB are free"
        f"{short}"
    )
