"""The child process that refines models: `python -m lgbatch.reconstruction.refinement.worker`. Started by refine.py.

COLMAP aborts its process if the memory is short, and its bundle adjustment cannot be cancelled.
"""

import os
import zlib  # noqa: F401  before pycolmap, whose symbols would shadow it
from pathlib import Path

import pycolmap

from lgbatch.reconstruction.colmap_worker import statistics
from lgbatch.reconstruction.refinement.model import Options, refine_model
from lgbatch.reconstruction.refinement.photos import GreyPhotos
from lgbatch.reconstruction.subprocess_worker import Message, Report, serve

_ONE_THREAD_IMAGES = 100  # up to so many, bundle adjustment gives the same result in every run, as mapping does


def _work(request: Message, _: Report) -> Message:
    """Refine models.

    Keys of the request:
        models        folders of the models
        unrefined     folder in these, to which the files of a model move if it changes
        images        path of the image folder
        fixed         whether to keep the cameras' intrinsics
        intrinsics    "auto", "focal", "all" or "none"
        threads       of alignment, and of bundle adjustment from 100 images
        log           whether to print COLMAP's whole log

    The result: {"models": [[fields of results.RefinedModel, fields of reconstruction.results.Model], ...]}.
    """
    if not request["log"]:
        pycolmap.logging.minloglevel = int(pycolmap.logging.ERROR)
    photos = GreyPhotos(Path(request["images"]))
    return {"models": [_refine(Path(folder), photos, request) for folder in request["models"]]}


def _refine(folder: Path, photos: GreyPhotos, request: Message) -> list[Message]:
    model = pycolmap.Reconstruction(folder)
    options = Options(
        fixed=request["fixed"],
        intrinsics=request["intrinsics"],
        threads=request["threads"],
        adjust_threads=1 if model.num_reg_images() <= _ONE_THREAD_IMAGES else request["threads"],
    )
    outcome = refine_model(model, photos, options)
    if outcome.figures.get("change"):
        files = [file for file in folder.iterdir() if file.suffix == ".bin"]
        (folder / request["unrefined"]).mkdir()
        for file in files:
            file.rename(folder / request["unrefined"] / file.name)
        outcome.model.write(folder)
    return [outcome.figures, statistics(outcome.model)]


if __name__ == "__main__":
    serve(_work, lambda: os._exit(1))
