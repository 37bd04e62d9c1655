"""A model as its undistorted images have it."""

from collections.abc import Mapping

import numpy as np
import pycolmap

from lgbatch.errors import ItemError

Options = pycolmap.UndistortCameraOptions


def undistorted_camera(camera: pycolmap.Camera) -> pycolmap.Camera:
    """Return the pinhole camera that COLMAP undistorts photos of a camera to. Raises ItemError if there is none."""
    try:
        undistorted = pycolmap.undistort_camera(Options(), camera)
    except ValueError:
        raise ItemError(f"camera model {camera.model_name} has no undistorted image: leave its photos out") from None
    undistorted.camera_id = camera.camera_id
    return undistorted


def undistorted_model(
    model: pycolmap.Reconstruction, cameras: Mapping[int, pycolmap.Camera], names: Mapping[str, str]
) -> pycolmap.Reconstruction:
    """Copy the images `names`, new names by old ones, with their points, to the undistorted `cameras`.

    Each image has a rig and a frame of its own, which older readers of models do not know. Points that fewer than two
    of the images observe are left out.
    """
    copy = pycolmap.Reconstruction()
    used = {image.camera_id for image in model.images.values() if image.has_pose and image.name in names}
    for camera_id in sorted(used):
        copy.add_camera_with_trivial_rig(cameras[camera_id])
    for image_id in sorted(model.reg_image_ids()):
        image = model.images[image_id]
        if image.name in names:
            points = _undistorted_points(image, model.cameras[image.camera_id], cameras[image.camera_id])
            added = pycolmap.Image(
                name=names[image.name], points2D=points, camera_id=image.camera_id, image_id=image_id
            )
            copy.add_image_with_trivial_frame(added, image.cam_from_world())
    for point_id, point in model.points3D.items():
        elements = [element for element in point.track.elements if copy.exists_image(element.image_id)]
        if len(elements) < 2:
            continue
        kept = pycolmap.Point3D(xyz=point.xyz, color=point.color, error=point.error, track=pycolmap.Track(elements))
        copy.add_point3D_with_id(point_id, kept)
    copy.update_point_3d_errors()
    return copy


def _undistorted_points(
    image: pycolmap.Image, camera: pycolmap.Camera, undistorted: pycolmap.Camera
) -> pycolmap.Point2DList:
    """The points of an image in pixels of the undistorted image. Those that no ray belongs to stay where they are."""
    before = np.array([point.xy for point in image.points2D]).reshape(-1, 2)
    rays = camera.cam_from_img(before) if len(before) else before
    after = undistorted.img_from_cam(np.column_stack([rays, np.ones(len(rays))]), False)
    after = np.where(np.isfinite(after), after, before)
    return pycolmap.Point2DList([pycolmap.Point2D(xy) for xy in after])
