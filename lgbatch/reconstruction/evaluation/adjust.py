"""Bundle adjustment of a model to given intrinsics, which stay as they are."""

from collections.abc import Mapping

import pycolmap

from lgbatch.colmap.sensors.calibration import KnownCamera as Intrinsics
from lgbatch.reconstruction.bundle_adjustment import adjustment_of

_LOSS_SCALE = 0.5  # pixels, of Cauchy's loss
_MOST_ITERATIONS = 100

_Own = tuple[int, Intrinsics | None]
"""A camera of the model, and the intrinsics of some of its images."""


def adjust_to(model: pycolmap.Reconstruction, given: Mapping[str, Intrinsics], threads: int) -> pycolmap.Reconstruction:
    """Adjust poses and points of a model to the intrinsics `given` by image name. `threads` 0 uses all cores.

    A camera takes the intrinsics of its images. If these differ, each gets a camera of its own; the images of rigs then
    move freely. Cameras without given intrinsics have theirs refined. Returns the adjusted model; the argument is
    changed. Raises InputError if the aspect ratio of an image is another one.
    """
    wanted = _by_camera(model, given)
    if any(len(cameras) > 1 for cameras in wanted.values()):
        model = _split(model, given)
        wanted = _by_camera(model, given)
    for camera_id, cameras in wanted.items():
        camera = model.cameras[camera_id]
        for intrinsics, name in cameras.items():
            fixed = intrinsics.at(name, (camera.width, camera.height))
            camera.model, camera.params = fixed.model, list(fixed.params)
    for robust in False, True:  # a robust loss alone would ignore observations that the old intrinsics had bent
        _solve(model, set(wanted), robust, threads)
    model.update_point_3d_errors()
    return model


def _by_camera(model: pycolmap.Reconstruction, given: Mapping[str, Intrinsics]) -> dict[int, dict[Intrinsics, str]]:
    """The given intrinsics of each camera, with the name of an image that has them."""
    found: dict[int, dict[Intrinsics, str]] = {}
    for image in model.images.values():
        if image.has_pose and image.name in given:
            found.setdefault(image.camera_id, {}).setdefault(given[image.name], image.name)
    return found


def _split(model: pycolmap.Reconstruction, given: Mapping[str, Intrinsics]) -> pycolmap.Reconstruction:
    """Copy the registered images and the points of a model, with a camera for each of the given intrinsics."""
    copy = pycolmap.Reconstruction()
    cameras: dict[_Own, int] = {}
    for image_id in sorted(model.reg_image_ids()):
        image = model.images[image_id]
        own = image.camera_id, given.get(image.name)
        if own not in cameras:
            cameras[own] = len(cameras) + 1
            camera = pycolmap.Camera(model.cameras[image.camera_id].todict() | {"camera_id": cameras[own]})
            copy.add_camera_with_trivial_rig(camera)
        points = pycolmap.Point2DList([pycolmap.Point2D(point.xy) for point in image.points2D])
        added = pycolmap.Image(name=image.name, points2D=points, camera_id=cameras[own], image_id=image_id)
        copy.add_image_with_trivial_frame(added, image.cam_from_world())
    for point_id, point in model.points3D.items():
        copy.add_point3D_with_id(point_id, point)
    return copy


def _solve(model: pycolmap.Reconstruction, fixed: set[int], robust: bool, threads: int) -> None:
    options = pycolmap.BundleAdjustmentOptions(print_summary=False)
    if robust:
        options.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
        options.ceres.loss_function_scale = _LOSS_SCALE
    options.ceres.solver_options.max_num_iterations = _MOST_ITERATIONS
    options.ceres.solver_options.num_threads = threads or -1
    pycolmap.create_default_ceres_bundle_adjuster(options, adjustment_of(model, fixed), model).solve()
