"""What every bundle adjustment of a finished model has in common."""

from collections.abc import Iterable

import pycolmap


def adjustment_of(model: pycolmap.Reconstruction, fixed: Iterable[int]) -> pycolmap.BundleAdjustmentConfig:
    """Return the configuration that adjusts all poses and points, and keeps the intrinsics of the `fixed` cameras."""
    config = pycolmap.BundleAdjustmentConfig()
    for image_id in model.reg_image_ids():
        config.add_image(image_id)
    for camera_id in fixed:
        config.set_constant_cam_intrinsics(camera_id)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    return config
