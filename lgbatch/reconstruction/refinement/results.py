"""What refinement changed, as figures and in words."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

from lgbatch.reconstruction.results import Model
from lgbatch.types import counted
from lgbatch.workspace.stage import StageResult


@dataclass(frozen=True, kw_only=True)
class RefinedModel:
    """What refinement changed in one model. Errors are in pixels of the original photos."""

    change: Literal["aligned", "cameras", "none"] = "none"
    """aligned: observations are aligned; cameras: they are as before, but principal points are refined; none: neither
    is better."""
    reason: str = ""
    """Why nothing changed."""
    observations: int
    """Observations before."""
    aligned: int = 0
    """Observations that agree with the reference view of their point, references included."""
    kept: int = 0
    """Observations that stayed in the model."""
    moved: float = 0.0
    """Median distance by which aligned observations moved."""
    error_before: float
    error_after: float | None = None
    """Mean reprojection error."""
    held_out_before: float | None = None
    held_out_after: float | None = None
    """Median error of observations that their points were triangulated without."""
    principal_points: int = 0
    """Cameras whose principal point was refined."""
    higher_models: int = 0
    """Cameras that have a second radial coefficient now."""


@dataclass(frozen=True, kw_only=True)
class Refinement(StageResult):
    """The result of the refine stage."""

    models: tuple[Model, ...] = ()
    """Statistics of the models as they are now; empty if refinement is off or failed."""
    refined: tuple[RefinedModel, ...] = ()
    """What changed in each model."""
    problem: str = ""
    """The error that ended the refinement: the models are as mapped."""
    seconds: float = 0.0

    def as_repeated(self) -> Self:
        """The result of a run that skips the stage: it takes no time."""
        return replace(super().as_repeated(), seconds=0.0)

    def figures(self) -> list[dict[str, Any]] | dict[str, str] | None:
        """What the summary tells of the refinement: the figures of each model, or the problem; None if it is off."""
        if self.problem:
            return {"left_out": self.problem}
        return [asdict(model) for model in self.refined] or None


def format_refinement(figures: list[dict[str, Any]] | dict[str, str]) -> list[str]:
    """Format Refinement.figures() as lines for the terminal."""
    if isinstance(figures, dict):
        return [f"refined     left out: {figures['left_out']}"]
    return [f"refined     model {number}: {_describe(RefinedModel(**values))}" for number, values in enumerate(figures)]


def _describe(model: RefinedModel) -> str:
    if model.change == "none":
        return f"as mapped: {model.reason}"
    text = f"reprojection error {model.error_before:.2f} -> {model.error_after:.2f} px, "
    text += f"held-out {model.held_out_before:.2f} -> {model.held_out_after:.2f} px"
    if model.change == "aligned":
        text += f"; {model.aligned / model.observations:.0%} of the observations aligned, moved by {model.moved:.2f} px"
    if model.principal_points:
        text += f"; principal point of {counted(model.principal_points, 'camera')}"
    return text
