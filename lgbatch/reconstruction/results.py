"""What verification and mapping return."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from lgbatch.workspace.stage import StageResult


@dataclass(frozen=True)
class Model:
    """One sparse model."""

    registered_images: int
    points3D: int
    observations: int
    mean_reprojection_error: float
    """Pixels of the original images."""
    mean_track_length: float
    """Images that see a point."""


@dataclass(frozen=True, kw_only=True)
class Reconstruction(StageResult):
    """What the database held, and what came of it. `models` is empty when nothing could be registered."""

    images: int
    images_with_keypoints: int
    matched_pairs: int
    verified_pairs: int
    most_inliers: int
    """Inlier matches of the best verified pair."""
    models: tuple[Model, ...]
    """Largest first; number i lies in sparse/i."""
    older_models: bool = False
    """No model was made, and `sparse` still holds those of an earlier run."""
    seconds_verification: float
    seconds_mapping: float

    def as_repeated(self) -> Self:
        """Nothing is verified or mapped in a run that skips the stage."""
        return replace(super().as_repeated(), seconds_verification=0.0, seconds_mapping=0.0)


def format_table(models: Sequence[Model]) -> str:
    """The models as text, one line each under a header."""
    lines = ["model  images   points  observations  reprojection error  track length"]
    for number, m in enumerate(models):
        lines.append(
            f"{number:5}  {m.registered_images:6}  {m.points3D:7}  {m.observations:12}  "
            f"{m.mean_reprojection_error:15.2f} px  {m.mean_track_length:12.2f}"
        )
    return "\n".join(lines)
