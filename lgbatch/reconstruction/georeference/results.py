"""What georeferencing found, as figures and in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lgbatch.reconstruction.georeference.alignment import Alignment
from lgbatch.reconstruction.georeference.frame import Array, Frame
from lgbatch.types import counted, escape

_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class Adjusted:
    """What the adjustment to positions changed."""

    residuals: Array
    """(N, 3) after it, in metres."""
    error_before: float
    error_after: float
    """Mean reprojection error in pixels."""


@dataclass(frozen=True, kw_only=True)
class GeoreferencedModel:
    """One model, and its transform from sparse/N to the frame."""

    number: int
    registered: int
    """Registered images."""
    names: Sequence[str]
    """The photos with positions, or the control points."""
    alignment: Alignment
    adjusted: Adjusted | None = None
    pixel_errors: Sequence[float] = ()
    """Mean reprojection error of each control point, in pixels."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        a, extra = self.alignment, self.adjusted
        residuals = extra.residuals if extra else a.residuals
        values = {
            "model": self.number,
            "registered_images": self.registered,
            "frame_from_model": a.matrix.tolist(),
            "scale": a.scale,
            "weak": a.weak,
            "residuals": figures(residuals[a.inliers]),
            "outliers": [name for name, inlier in zip(self.names, a.inliers.tolist(), strict=True) if not inlier],
            "each": {name: row for name, row in zip(self.names, residuals.round(4).tolist(), strict=True)},
        }
        if extra:
            values |= {
                "residuals_before_adjustment": figures(a.residuals[a.inliers]),
                "reprojection_error_before": extra.error_before,
                "reprojection_error": extra.error_after,
            }
        return values | (
            {"pixel_errors": dict(zip(self.names, self.pixel_errors, strict=True))} if self.pixel_errors else {}
        )


@dataclass(frozen=True, kw_only=True)
class Georeferenced:
    """The models of a workspace in one frame."""

    folder: Path
    frame: Frame
    source: str
    """Where the positions are from, in words."""
    what: str
    """What has positions: photos, or control points."""
    accuracy: float
    models: Sequence[GeoreferencedModel]
    left_out: Mapping[int, str] = field(default_factory=dict)
    """Why a model is not georeferenced, by its number."""
    without: Sequence[str] = ()
    """Registered photos, or control points, without a usable position."""
    notes: Sequence[str] = ()

    @property
    def exit_status(self) -> int:
        """1 if a model is left out or rests on weak evidence."""
        return int(bool(self.left_out) or any(model.alignment.weak for model in self.models))

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return self.about() | {"folder": str(self.folder), "models": [model.as_dict() for model in self.models]}

    def about(self) -> dict[str, Any]:
        """What all models have in common, as plain values."""
        return {
            "frame": self.frame.as_dict(),
            "positions": self.source,
            "accuracy": self.accuracy,
            "without_position": list(self.without),
            "left_out": {str(number): reason for number, reason in self.left_out.items()},
            "notes": list(self.notes),
        }

    def format(self) -> str:
        """Return the lines that tell the result on a terminal."""
        lines = [f"frame      {_format_frame(self.frame)}", f"positions  {self.source}"]
        for model in self.models:
            lines += _format_model(model, self.what)
        lines += [f"model {number} is left out: {reason}" for number, reason in self.left_out.items()]
        if self.without:
            shown = ", ".join(map(escape, self.without[:_SHOWN])) + ", ..." * (len(self.without) > _SHOWN)
            kind = "without a position" if self.what.startswith("photos") else "not shown by two images that agree"
            lines.append(f"{kind}: {len(self.without)} ({shown})")
        return "\n".join([*lines, *self.notes, f"written to {escape(str(self.folder))}"])


def figures(residuals: Array) -> dict[str, float]:
    """Median and largest length of residuals (N, 3) in metres, horizontally and vertically, too."""
    lengths = {
        "": np.linalg.norm(residuals, axis=1),
        "_horizontal": np.linalg.norm(residuals[:, :2], axis=1),
        "_vertical": np.abs(residuals[:, 2]),
    }
    return {
        f"{kind}{name}": float(f(values))
        for name, values in lengths.items()
        for kind, f in (("median", np.median), ("max", np.max))
    }


def _format_frame(frame: Frame) -> str:
    if frame.is_degrees:
        latitude, longitude, _ = frame.origin
        return f"metres, x east, y north, z up, origin at latitude {latitude:.6f} longitude {longitude:.6f} altitude 0"
    moved = f", less {frame.origin[0]:g} {frame.origin[1]:g}" if any(frame.origin) else ""
    return f"metres, the coordinates of the file{moved}"


def _format_model(model: GeoreferencedModel, what: str) -> list[str]:
    a = model.alignment
    lines = [
        f"model {model.number}    {counted(model.registered, 'image')}, {len(model.names)} {what}, "
        f"{a.scale:.6g} metres a unit",
        f"           residuals {_format_residuals(a.residuals[a.inliers])}",
    ]
    if model.adjusted:
        after = model.adjusted
        lines.append(
            f"           adjusted: residuals {_format_residuals(after.residuals[a.inliers])}; reprojection error "
            f"{after.error_before:.2f} -> {after.error_after:.2f} px"
        )
    far = [(a.distances[row], model.names[row]) for row in np.flatnonzero(~a.inliers).tolist()]
    lines += [f"           outlier {escape(name)}: {distance:.3g} m" for distance, name in sorted(far)[::-1][:_SHOWN]]
    if len(far) > _SHOWN:
        lines.append(f"           ... and {counted(len(far) - _SHOWN, 'more outlier')}: georeference.json has all")
    return lines + ([f"           weak: {a.weak}"] if a.weak else [])


def _format_residuals(residuals: Array) -> str:
    f = figures(residuals)
    return (
        f"median {f['median']:.3g} m (horizontal {f['median_horizontal']:.3g}, vertical {f['median_vertical']:.3g}), "
        f"max {f['max']:.3g} m"
    )
