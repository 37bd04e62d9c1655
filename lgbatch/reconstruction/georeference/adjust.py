"""The child process that adjusts models to positions: `python -m lgbatch.reconstruction.georeference.adjust`.

COLMAP aborts its process if the memory is short, and its bundle adjustment cannot be cancelled.
"""

import os
import zlib  # noqa: F401  before pycolmap, whose symbols would shadow it
from collections.abc import Mapping, Sequence

import numpy as np
import pycolmap

from lgbatch.reconstruction.bundle_adjustment import adjustment_of
from lgbatch.reconstruction.subprocess_worker import Message, Report, serve

_ONE_THREAD_IMAGES = 100  # up to so many, the result is the same in every run, as in mapping


def adjust_to_positions(
    model: pycolmap.Reconstruction, positions: Mapping[str, Sequence[float]], accuracy: float
) -> None:
    """Adjust a model in place to the positions (x, y, z) of images, with a standard deviation of `accuracy` metres.

    The model must be in the frame of the positions. Poses, points, focal lengths and distortion change; observations
    count with a standard deviation of one pixel. Cauchy's loss bounds the pull of wrong positions.
    """
    covariance = np.eye(3) * accuracy**2
    cartesian = pycolmap.PosePriorCoordinateSystem.CARTESIAN
    priors = [
        pycolmap.PosePrior(
            corr_data_id=image.data_id,
            position=np.array(positions[image.name]),
            position_covariance=covariance,
            coordinate_system=cartesian,
        )
        for image in map(model.image, sorted(model.reg_image_ids()))
        if image.name in positions and image.is_ref_in_frame()
    ]
    options = pycolmap.BundleAdjustmentOptions(print_summary=False)
    options.ceres.solver_options.num_threads = 1 if model.num_reg_images() <= _ONE_THREAD_IMAGES else -1
    robust = pycolmap.PosePriorBundleAdjustmentOptions()
    robust.ceres.prior_position_loss_function_type = pycolmap.LossFunctionType.CAUCHY
    robust.alignment_ransac.random_seed = 0
    config = adjustment_of(model, ())
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.UNSPECIFIED)
    pycolmap.create_pose_prior_ceres_bundle_adjuster(options, robust, config, priors, model).solve()
    model.update_point_3d_errors()


def _work(request: Message, _: Report) -> Message:
    """Adjust models in their folders.

    Keys of the request:
        models      [folder, [x, y, z] by image name] of each
        accuracy    standard deviation of the positions, in metres
        log         whether to print COLMAP's whole log

    The result: {"models": [{"centres": [x, y, z] by image name, "error": mean reprojection error in pixels}, ...]}.
    """
    if not request["log"]:
        pycolmap.logging.minloglevel = int(pycolmap.logging.ERROR)
    results = []
    for folder, positions in request["models"]:
        model = pycolmap.Reconstruction(folder)
        adjust_to_positions(model, positions, request["accuracy"])
        model.write(folder)
        images = map(model.image, model.reg_image_ids())
        centres = {image.name: image.projection_center().tolist() for image in images}
        results.append({"centres": centres, "error": model.compute_mean_reprojection_error()})
    return {"models": results}


if __name__ == "__main__":
    serve(_work, lambda: os._exit(1))
