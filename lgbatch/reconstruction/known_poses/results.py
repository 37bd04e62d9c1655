"""What triangulation with known poses found, as figures and in words."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lgbatch.reconstruction.results import Model, format_table
from lgbatch.types import counted, escape

_SHOWN = 10
_LEAST_CONFIRMED = 0.25
"""Part of the verified matches that poses which fit the photos confirm, at least: most are 0.5 to 0.9."""


@dataclass(frozen=True, kw_only=True)
class Triangulated:
    """A model with known poses. Lists have names of images."""

    folder: Path
    poses: str
    """The format of the poses, in words."""
    images: int
    """Images of the database."""
    model: Model
    given_intrinsics: int
    """Images whose intrinsics are known and stay as they are. If there are none, all are refined."""
    without_pose: tuple[str, ...]
    without_points: tuple[str, ...]
    """Images with a pose that observe no point."""
    ambiguous: tuple[str, ...]
    """Names or times that several poses or images have: they have no pose."""
    absent: int
    """Poses of other photos."""
    matches: int
    """Verified matches between images with a pose."""
    confirmed: int
    """Those whose two keypoints observe the same point."""

    @property
    def doubtful(self) -> bool:
        """Whether so few matches agree with the poses that these are hardly of the photos."""
        return self.confirmed < _LEAST_CONFIRMED * self.matches

    @property
    def exit_status(self) -> int:
        """1 if images lack a pose or points, or if the poses do not fit the photos."""
        return int(bool(self.without_pose or self.without_points or self.doubtful))

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return asdict(self) | {"folder": str(self.folder), "doubtful": self.doubtful}

    def format(self) -> str:
        """Return the lines that tell the result on a terminal."""
        posed = self.images - len(self.without_pose)
        others = f"; {self.absent} of other photos" if self.absent else ""
        kept = f"known of {counted(self.given_intrinsics, 'image')}" if self.given_intrinsics else "unknown, refined"
        part = f" ({100 * self.confirmed / self.matches:.0f}%)" if self.matches else ""
        lines = [
            f"poses       {self.poses}, of {posed} of {counted(self.images, 'image')}{others}; intrinsics {kept}",
            f"matches     {self.confirmed} of {self.matches} verified ones agree with the poses{part}",
            *format_table([self.model]).splitlines(),
        ]
        lines += _named("without a pose", self.without_pose) + _named("without points", self.without_points)
        lines += _named("ambiguous", self.ambiguous)
        if self.doubtful:
            lines.append(
                "doubtful: hardly any match agrees with the poses; are they of these photos, with the axes and in the "
                "direction (camera to world, or its inverse) of the format?"
            )
        return "\n".join([*lines, f"written to {escape(str(self.folder))}"])


def _named(kind: str, names: tuple[str, ...]) -> list[str]:
    more = ", ..." if len(names) > _SHOWN else ""
    return [f"{kind}: {len(names)} ({', '.join(map(escape, names[:_SHOWN]))}{more})"] if names else []
