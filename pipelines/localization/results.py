"""What localization found, as figures and in words."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lgbatch.reconstruction.results import Model, format_table
from lgbatch.types import Failure, Matches, counted, escape

if TYPE_CHECKING:
    import pycolmap

_SHOWN = 20


@dataclass(frozen=True, eq=False)
class Localized:
    """A photo that has been read."""

    name: str
    pose: NDArray[np.float64] | None
    """(3, 4) camera_from_world; None if there is too little evidence."""
    camera: "pycolmap.Camera"
    is_known: bool
    """The camera is one of the model."""
    correspondences: int
    """Keypoints that match points of the model."""
    inliers: dict[int, int]
    """3D point of the model by keypoint."""
    keypoints: NDArray[np.float64]
    """(N, 2) in COLMAP's pixels: the centre of the top-left one is (0.5, 0.5)."""
    matches: dict[str, Matches] = field(default_factory=dict)
    """Matches of the keypoints with those of registered photos, by their names."""
    orientation: int = 1
    """EXIF code by which the photo was turned upright."""
    reason: str = ""
    """Why there is no pose."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        camera = self.camera
        about = {
            "name": self.name,
            "keypoints_with_points": self.correspondences,
            "inliers": len(self.inliers),
            "orientation": self.orientation,
        }
        if self.pose is None:
            return about | {"camera_from_world": None, "reason": self.reason}
        size = {"width": camera.width, "height": camera.height, "of_the_model": self.is_known}
        return about | {
            "camera_from_world": self.pose.tolist(),
            "camera": {"model": camera.model_name, "params": [*camera.params]} | size,
        }


@dataclass(frozen=True, kw_only=True)
class Localization:
    """The poses of photos in a model."""

    folder: Path
    photos: Sequence[Localized]
    failures: Sequence[Failure] = ()
    """Photos that cannot be read."""
    registered: Sequence[str] = ()
    """Photos that are in the model already."""
    added: Model | None = None
    """The model with the photos in it."""

    @property
    def exit_status(self) -> int:
        """1 if a photo has no pose."""
        return int(bool(self.failures) or any(photo.pose is None for photo in self.photos))

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {
            "folder": str(self.folder),
            "photos": [photo.as_dict() for photo in self.photos],
            "failures": [{"name": failure.name, "reason": failure.reason} for failure in self.failures],
            "in_the_model_already": list(self.registered),
        }

    def format(self) -> str:
        """Return the lines that tell the result on a terminal."""
        found = [photo for photo in self.photos if photo.pose is not None]
        total = len(self.photos) + len(self.failures)
        lines = [f"localized   {len(found)} of {counted(total, 'photo')}"]
        if self.registered:
            lines.append(f"in the model already: {counted(len(self.registered), 'photo')}")
        for photo in found[:_SHOWN]:
            inliers = f"{len(photo.inliers)} of {photo.correspondences} keypoints that match points agree"
            intrinsics = (
                "camera of the model" if photo.is_known else f"focal length {photo.camera.focal_length_x:.0f} px"
            )
            lines.append(f"  {escape(photo.name)}: {inliers}, {intrinsics}")
        if len(found) > _SHOWN:
            lines.append(f"  ... and {len(found) - _SHOWN} more: poses.json has all")
        lines += [f"not localized: {escape(p.name)}: {p.reason}" for p in self.photos if p.pose is None]
        lines += [failure.format() for failure in self.failures]
        if self.added:
            lines += ["with these photos:", *format_table([self.added]).splitlines()]
        return "\n".join([*lines, f"written to {escape(str(self.folder))}"])
