"""Results of verification and mapping, and the table of models that the command line prints."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

from lgbatch.workspace.stage import StageResult


@dataclass(frozen=True)
class Model:
    """Statistics of one sparse model."""

    registered_images: int
    points3D: int
    observations: int
    mean_reprojection_error: float
    """In pixels of the original images."""
    mean_track_length: float
    """Mean number of images that observe a point."""


Cause = Literal[
    "failed",
    "few keypoints",
    "masked",
    "no other image",
    "no pair",
    "no matches",
    "not verified",
    "too few 3D points",
    "other model",
]
"""Why an image is not registered: its photo or features cannot be used; it has hardly any keypoints; the same, since
its mask hides most of it; no other image has keypoints; the pairs file has no pair of it; no pair of it has matches;
none of these pairs is verified; its verified pairs share too few points with the model; or it is in a smaller model."""


@dataclass(frozen=True)
class Unregistered:
    """A photo that is not in the largest model."""

    name: str
    cause: Cause
    reason: str
    """The cause in words, with its figures."""


@dataclass(frozen=True)
class Doubtful:
    """A part of a model that few matches join to the rest. It may be in a wrong place."""

    model: int
    """Number of the model."""
    names: Sequence[str]
    """Its images."""
    matches: int
    """Largest number of matches of one of them with an image of another part that observe one 3D point."""


@dataclass(frozen=True)
class Warned:
    """A warning of COLMAP."""

    text: str
    count: int
    """Number of warnings that are equal but for the numbers in them."""


@dataclass(frozen=True, kw_only=True)
class Reconstruction(StageResult):
    """The result of the reconstruct stage. `models` is empty if no image could be registered."""

    images: int
    images_with_keypoints: int
    matched_pairs: int
    verified_pairs: int
    most_inliers: int
    """Number of inlier matches of the best verified pair, 0 without one."""
    most_keypoints: int = 0
    """Largest number of keypoints of an image."""
    longest_side: int = 0
    """Longest side of all images, in pixels."""
    cameras: int = 0
    one_size: bool = True
    """All images have the same size."""
    models: tuple[Model, ...]
    """Largest first; model i is in sparse/i."""
    unregistered: tuple[Unregistered, ...] = ()
    """The photos that are not in models[0]: those that failed, then those in the database."""
    weakly_joined: tuple[str, ...] = ()
    """The images of the models with few verified pairs."""
    doubtful: tuple[Doubtful, ...] = ()
    """The parts of the models that may be in a wrong place, largest first."""
    warnings: tuple[Warned, ...] = ()
    """COLMAP's warnings, oldest first."""
    older_models: bool = False
    """This run produced no model, and `sparse` still contains models of an earlier run."""
    seconds_verification: float
    seconds_mapping: float

    def as_repeated(self) -> Self:
        """The result of a run that skips the stage: verification and mapping take no time."""
        return replace(super().as_repeated(), seconds_verification=0.0, seconds_mapping=0.0)


def format_table(models: Sequence[Model]) -> str:
    """Format the models as a table: a header and one line per model."""
    lines = ["model  images   points  observations  reprojection error  track length"]
    for number, m in enumerate(models):
        lines.append(
            f"{number:5}  {m.registered_images:6}  {m.points3D:7}  {m.observations:12}  "
            f"{m.mean_reprojection_error:15.2f} px  {m.mean_track_length:12.2f}"
        )
    return "\n".join(lines)
