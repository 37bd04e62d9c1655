"""The refine stage: refines the models in sparse/, and keeps the mapped ones in sparse/N/unrefined.

Observations are aligned in the photos at full size, and cameras, poses and points are adjusted to them. A model that
does not predict held-out observations better stays as it is. pycolmap runs in a child process (worker.py).
"""

import shutil
import time
from importlib import metadata
from pathlib import Path

from lgbatch.config import Settings
from lgbatch.errors import ReconstructionError
from lgbatch.reconstruction.model_folders import (
    draft_folder,
    finish_replacement,
    numbered_models,
    remove_draft,
    replace_models,
)
from lgbatch.reconstruction.progress import run_timed
from lgbatch.reconstruction.refinement.results import RefinedModel, Refinement
from lgbatch.reconstruction.results import Model
from lgbatch.reconstruction.subprocess_worker import Message
from lgbatch.runtime.environment import available_cores
from lgbatch.runtime.packages import require_pycolmap
from lgbatch.types import escape
from lgbatch.workspace.folder import Workspace
from lgbatch.workspace.stage import StageRun, run_stage
from lgbatch.workspace.stage_cache import signatures

_WORKER = "lgbatch.reconstruction.refinement.worker"
UNREFINED = "unrefined"
"""Folder in that of a refined model: the model as it was mapped."""


def refine(
    workspace: Workspace, photos: Path, settings: Settings | None = None, *, progress: bool = False
) -> Refinement:
    """Refine the models sparse/0, sparse/1, ... of a workspace, whose photos are below `photos`.

    Uses the settings `refine`, `refine_intrinsics`, `fix_intrinsics` and `threads`. Always starts from the models as
    they were mapped; with `refine` off, these take the place of refined ones. The stage is skipped if settings and
    models have not changed. Ctrl-C leaves the models as they are.

    An error leaves out the refinement: the result has the `problem`. Raises ReconstructionError if there is no model,
    and LgbatchError without pycolmap.
    """
    require_pycolmap()
    settings, sparse = settings or Settings(), workspace.sparse
    try:
        finish_replacement(sparse)
        models = sorted(numbered_models(sparse), key=lambda model: int(model.name))
        before = [file for model in models for file in model.rglob("*")]  # earlier stages may have recorded them
        stage = StageRun(
            name="refine",
            folder=workspace.root,
            settings=settings,
            inputs={
                "images": str(photos.resolve()),
                "pycolmap": metadata.version("pycolmap"),
                "models": {
                    f"{model.name}/{Path(file).name}": value
                    for model in models
                    for file, value in signatures(_mapped_files(model)).items()
                },
            },
            outputs=lambda: [*before, *numbered_models(sparse)],
            result=Refinement,
            parts={"models": Model, "refined": RefinedModel},
        )
        return run_stage(stage, lambda _: _refine(models, photos, sparse, settings, progress))
    except (OSError, RuntimeError, ValueError) as error:
        return Refinement(problem=escape(str(error).partition("\n")[0]))


def _mapped_files(model: Path) -> list[Path]:
    """The files of a model as it was mapped."""
    unrefined = model / UNREFINED
    return sorted(file for file in (unrefined if unrefined.is_dir() else model).iterdir() if file.suffix == ".bin")


def _refine(models: list[Path], photos: Path, sparse: Path, settings: Settings, progress: bool) -> Refinement:
    start, draft = time.perf_counter(), draft_folder(sparse)
    if not models:
        raise ReconstructionError(f"{sparse} has no models: run `lgbatch reconstruct` first")
    remove_draft(sparse)
    try:
        drafts = [_copy_as_mapped(model, draft / model.name) for model in models]
        results = _run(drafts, photos, settings, progress) if settings.refine else []
        if any(figures.get("change") for figures, _ in results) or any(
            (model / UNREFINED).is_dir() for model in models
        ):
            replace_models(drafts, sparse)
    finally:
        remove_draft(sparse)
    return Refinement(
        models=tuple(Model(**statistics) for _, statistics in results),
        refined=tuple(RefinedModel(**figures) for figures, _ in results),
        seconds=time.perf_counter() - start,
    )


def _copy_as_mapped(model: Path, copy: Path) -> Path:
    """Copy a model as it was mapped, with the other files of its folder."""
    shutil.copytree(model, copy, ignore=shutil.ignore_patterns(UNREFINED))
    for file in _mapped_files(model):
        shutil.copy2(file, copy)
    return copy


def _run(models: list[Path], photos: Path, settings: Settings, progress: bool) -> list[tuple[Message, Message]]:
    """Refine the models in place, in a child process. Returns the figures and statistics of each."""
    request: Message = {
        "models": [str(model) for model in models],
        "unrefined": UNREFINED,
        "images": str(photos),
        "fixed": settings.fix_intrinsics,
        "intrinsics": settings.refine_intrinsics,
        "threads": settings.threads or available_cores(),
    }
    result = run_timed(_WORKER, request, "refine", shown=progress)
    return [(figures, statistics) for figures, statistics in result["models"]]
