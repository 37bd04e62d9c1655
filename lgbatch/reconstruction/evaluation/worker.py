"""The child process that adjusts a model to given intrinsics: `python -m lgbatch.reconstruction.evaluation.worker`.

COLMAP aborts its process if the memory is short, and its bundle adjustment cannot be cancelled.
"""

import os
import zlib  # noqa: F401  before pycolmap, whose symbols would shadow it

import pycolmap

from lgbatch.colmap.sensors.calibration import KnownCamera as Intrinsics
from lgbatch.errors import InputError
from lgbatch.reconstruction.evaluation.adjust import adjust_to
from lgbatch.reconstruction.evaluation.formats.colmap_model import model_poses
from lgbatch.reconstruction.subprocess_worker import Message, Report, serve


def _work(request: Message, _: Report) -> Message:
    """Adjust a model.

    Keys of the request:
        model         its folder
        intrinsics    [camera model, parameters, (width, height) or null] by image name
        threads       of bundle adjustment; 0: all cores
        log           whether to print COLMAP's whole log

    The result: {"poses": {image name: camera_from_world, 3 rows of 4}, "mean_reprojection_error": pixels}.
    """
    if not request["log"]:
        pycolmap.logging.minloglevel = int(pycolmap.logging.ERROR)
    given = {
        name: Intrinsics(model, tuple(params), tuple(size) if size else None)
        for name, (model, params, size) in request["intrinsics"].items()
    }
    try:
        adjusted = adjust_to(pycolmap.Reconstruction(request["model"]), given, request["threads"])
    except InputError as error:
        raise ValueError(str(error)) from None
    poses = {name: pose.tolist() for name, pose in model_poses(adjusted).items()}
    return {"poses": poses, "mean_reprojection_error": adjusted.compute_mean_reprojection_error()}


if __name__ == "__main__":
    serve(_work, lambda: os._exit(1))
