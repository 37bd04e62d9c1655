"""The command that repeats a run with other settings, in the workspace as it is."""

import os
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self, get_args

from lgbatch.config import Settings, Stage, meta, settings_used_by
from lgbatch.workspace.stage_cache import recorded_settings

_STEPS: dict[str, tuple[Stage, ...]] = {
    "extract": ("extract",),
    "pairs": ("pairs",),
    "match": ("match", "import"),
    "reconstruct": ("reconstruct",),
}
"""The commands that run one stage after the other, with the stages whose settings each reads."""


@dataclass(frozen=True, kw_only=True)
class Rerun:
    """How a model was made: by `lgbatch run`, or in single steps."""

    settings: Settings
    photos: Path
    """Folder of the photos."""
    workspace: Path
    models: Path | None = None
    """Folder of the ONNX models; None for the default."""
    pairs: Path | None = None
    """Pairs file of the user; None if the pairs were chosen by the settings."""
    in_steps: bool = False

    @classmethod
    def of_steps(cls, settings: Settings, photos: Path, workspace: Path) -> Self:
        """The single steps that led to a workspace. `settings` are those of `lgbatch reconstruct`."""
        earlier, own = recorded_settings(workspace), {f.name for f in settings_used_by("reconstruct")}
        known = {f.name: earlier[f.name] for f in fields(Settings) if f.name in earlier and f.name not in own}
        return cls(settings=replace(settings, **known), photos=photos, workspace=workspace, in_steps=True)

    def command(self, **changes: Any) -> str:
        """Return the command line that applies the changes. It computes again what no longer fits them."""
        if any(meta(f).effect == "items" for f in fields(Settings) if f.name in changes):
            changes["on_change"] = "recompute"
        if not self.in_steps:
            words: list[str | Path] = ["lgbatch", "run", self.photos, "-o", self.workspace]
            words += ["--pairs", self.pairs] if self.pairs else []
            stages = [stage for stage in get_args(Stage) if stage != "pairs" or not self.pairs]
            return self._line(words, self.models, stages, changes)
        first = next((step for step in _STEPS if _reads(step, changes)), "reconstruct")
        steps = [*_STEPS][[*_STEPS].index(first) :]
        if not _reads("pairs", changes) and "pairs" in steps:
            steps.remove("pairs")
        return " && ".join(self._step(step, changes) for step in steps)

    def _step(self, step: str, changes: dict[str, Any]) -> str:
        words: list[str | Path] = ["lgbatch", step, *([self.photos] if step == "extract" else []), "-w", self.workspace]
        return self._line(words, self.models if step in ("extract", "match") else None, _STEPS[step], changes)

    def _line(
        self, words: list[str | Path], models: Path | None, users: Sequence[Stage], changes: dict[str, Any]
    ) -> str:
        """Join a command, the folder of the models, the settings that are not the defaults, and those that change."""
        words += ["--models", models] if models else []
        for f in settings_used_by(*users):
            value, option = changes.get(f.name, getattr(self.settings, f.name)), f.name.replace("_", "-")
            if f.name not in changes and value == f.default:
                continue
            words += [f"--{option}"] * value if f.type is bool else [f"--{option}", str(value)]
        return (subprocess.list2cmdline if os.name == "nt" else shlex.join)([*map(str, words)])


def _reads(step: str, changes: dict[str, Any]) -> bool:
    return any(f.name in changes and f.name != "on_change" for f in settings_used_by(*_STEPS[step]))
