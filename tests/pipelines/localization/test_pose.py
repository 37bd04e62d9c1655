"""Poses from keypoints and points: exact with wrong correspondences, and refused on too little evidence."""

from typing import TYPE_CHECKING

import numpy as np
import pytest

from lgbatch.pipelines.localization.pose import Correspondences, estimate_pose

if TYPE_CHECKING:
    import pycolmap


def scene() -> "pycolmap.Reconstruction":
    import pycolmap

    pycolmap.set_random_seed(0)
    return pycolmap.synthesize_dataset(
        pycolmap.SyntheticDatasetOptions(num_points3D=100, num_points2D_without_point3D=0)
    )


def of_image(image: "pycolmap.Image", wrong: int = 0) -> tuple[np.ndarray, Correspondences]:
    """Keypoints of an image, and the points that they show; the points of the first ones are mixed up."""
    rows = sorted(image.get_observation_point2D_idxs())
    points = np.array([image.point2D(i).point3D_id for i in rows])
    points[:wrong] = np.roll(points[:wrong], 1)
    xy = np.array([image.point2D(i).xy for i in range(image.num_points2D())])
    return xy, Correspondences(np.array(rows), points)


@pytest.mark.parametrize("is_known", [True, False])
def test_a_pose_is_exact_in_spite_of_wrong_correspondences(is_known: bool) -> None:
    import pycolmap

    model = scene()
    image = model.images[1]
    true = pycolmap.Camera(image.camera.todict())
    camera = pycolmap.Camera(image.camera.todict())
    if not is_known:
        camera.params = [1000.0, *true.params[1:3], 0.0]
        camera.has_prior_focal_length = False
    found = estimate_pose(model, camera, *of_image(image, wrong=30), 1.0, is_known)
    assert found.pose is not None and found.correspondences == image.num_points3D
    assert image.num_points3D - 30 <= len(found.inliers) <= image.num_points3D
    assert np.allclose(found.pose, image.cam_from_world().matrix(), atol=1e-3)
    assert np.allclose(camera.params, true.params, rtol=1e-3, atol=1e-3)
    assert all(image.point2D(i).point3D_id == point for i, point in found.inliers.items())


def test_too_little_evidence_tells_the_reason() -> None:
    model = scene()
    image = model.images[1]
    keypoints, found = of_image(image)
    few = Correspondences(found.keypoints[:14], found.points[:14])
    refused = estimate_pose(model, image.camera, keypoints, few, 1.0, True)
    assert refused.pose is None and refused.reason == "14 keypoints match points of the model, 15 are needed"
    rng = np.random.default_rng(0)
    mixed = Correspondences(found.keypoints, rng.permutation(found.points))
    refused = estimate_pose(model, image.camera, keypoints, mixed, 1.0, True)
    assert refused.pose is None and "agree on a pose: too few" in refused.reason
    assert estimate_pose(model, image.camera, keypoints, Correspondences(), 1.0, True).pose is None
