"""The command that repeats a run with other settings, in the workspace as it is."""

import os
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self, get_args

from lgbatch.config import Settings, Stage, settings_used_by
from lgbatch.configs.fields import meta
from lgbatch.workspace.folder import Workspace
from lgbatch.workspace.stage_cache import StageCache, recorded_paths, recorded_settings

_STEPS: dict[str, tuple[Stage, ...]] = {
    "extract": ("orient", "extract"),
    "pairs": ("pairs",),
    "match": ("match", "import"),
    "reconstruct": ("reconstruct", "refine"),
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
    photos_given: bool = False
    """The user named the folder of the photos in a step after extraction: --images."""

    @classmethod
    def of_steps(
        cls,
        settings: Settings,
        photos: Path,
        workspace: Path,
        *,
        photos_given: bool = False,
        default_models: Path | None = None,
    ) -> Self:
        """The single steps that led to a workspace. `settings` are those of `lgbatch reconstruct`.

        The other settings and paths are those that the finished stages recorded. A pairs.txt that is not as the pairs
        stage left it is a pairs file of the user.
        """
        earlier, own = recorded_settings(workspace), {f.name for f in settings_used_by(*_STEPS["reconstruct"])}
        known = {f.name: earlier[f.name] for f in fields(Settings) if f.name in earlier and f.name not in own}
        paths, chosen = recorded_paths(workspace), Workspace(workspace).pairs
        models, pairs = paths.get("models"), paths.get("pairs", chosen)
        as_chosen = pairs == chosen and "pairs" in StageCache(workspace, "").unchanged_stages()
        return cls(
            settings=replace(settings, **known),
            photos=photos,
            workspace=workspace,
            models=None if models == default_models else models,
            pairs=pairs if pairs.is_file() and not as_chosen else None,
            in_steps=True,
            photos_given=photos_given,
        )

    def command(self, *, match_again: bool = False, **changes: Any) -> str:
        """Return the command line that applies the changes. It computes again what no longer fits them.

        `match_again` repeats matching: the pairs file has changed.
        """
        if any(meta(f).effect == "items" for f in fields(Settings) if f.name in changes):
            changes["on_change"] = "recompute"
        if not self.in_steps:
            words: list[str | Path] = ["lgbatch", "run", self.photos, "-o", self.workspace]
            words += ["--pairs", self.pairs] if self.pairs else []
            words += self._models()
            stages = [stage for stage in get_args(Stage) if stage != "pairs" or not self.pairs]
            return self._line(words, [*stages, "run"], changes)
        last = "match" if match_again else "reconstruct"
        first = next((step for step in _STEPS if step == last or _reads(step, changes)), last)
        steps = [*_STEPS][[*_STEPS].index(first) :]
        if "pairs" in steps and not _reads("pairs", changes) and Workspace(self.workspace).pairs.is_file():
            steps.remove("pairs")
        return " && ".join(self._step(step, changes, moved=self.photos_given and first != "extract") for step in steps)

    def _step(self, step: str, changes: dict[str, Any], moved: bool) -> str:
        """The command of a step. With `moved`, features.h5 names another folder of photos."""
        words: list[str | Path] = ["lgbatch", step, *([self.photos] if step == "extract" else [])]
        if step == "match" and self.pairs and self.pairs != Workspace(self.workspace).pairs:
            words.append(self.pairs)
        words += ["-w", self.workspace]
        words += ["--images", self.photos] if moved and step in ("match", "reconstruct") else []
        return self._line(words + (self._models() if step in ("extract", "match") else []), _STEPS[step], changes)

    def _models(self) -> list[str | Path]:
        return ["--models", self.models] if self.models else []

    def _line(self, words: list[str | Path], users: Sequence[str], changes: dict[str, Any]) -> str:
        """Join a command, the settings that are not the defaults, and those that change; none without effect."""
        settings = replace(self.settings, **changes)
        for f in settings_used_by(*users):
            value, option = getattr(settings, f.name), f.name.replace("_", "-")
            if (f.name not in changes and value == f.default) or settings.disabled_by(f.name):
                continue
            if f.type is bool:
                words += [f"--{option}"] if value else [f"--no-{option}"] if f.default else []
            else:
                words += [f"--{option}", str(value)]
        return (subprocess.list2cmdline if os.name == "nt" else shlex.join)([*map(str, words)])


def _reads(step: str, changes: dict[str, Any]) -> bool:
    return any(f.name in changes and f.name != "on_change" for f in settings_used_by(*_STEPS[step]))
