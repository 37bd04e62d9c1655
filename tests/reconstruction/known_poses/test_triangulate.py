"""Points for known poses: exact, with poses that stay; what has no pose is told, and wrong poses are found out."""

from pathlib import Path

import numpy as np
import pytest

from lgbatch.errors import InputError, LgbatchError
from lgbatch.reconstruction.known_poses.triangulate import triangulate
from lgbatch.workspace.folder import Workspace
from tests.reconstruction.known_poses.helpers import PARAMS, known_scene, poses_of


def test_points_are_exact_and_poses_and_intrinsics_stay(tmp_path: Path) -> None:
    import pycolmap

    workspace, truth = known_scene(tmp_path)
    database = workspace.database.read_bytes()
    done = triangulate(workspace, tmp_path / "truth", tmp_path / "images")
    model = pycolmap.Reconstruction(done.folder)
    assert done.exit_status == 0 and done.given_intrinsics == 6 and done.model.points3D >= 110
    assert poses_of(model) == poses_of(truth) and [*model.cameras[1].params] == PARAMS
    true_points = np.array([point.xyz for point in truth.points3D.values()])
    found = np.array([point.xyz for point in model.points3D.values()])
    assert np.linalg.norm(found[:, None] - true_points, axis=2).min(1).max() < 1e-3
    assert workspace.database.read_bytes() == database and not workspace.sparse.exists()
    again = triangulate(workspace, done.folder, tmp_path / "images")  # replaces its own input
    assert again.model.observations == done.model.observations
    assert [path.name for path in workspace.triangulated.iterdir()] == ["0"]


def test_unknown_intrinsics_are_refined_and_images_without_a_pose_told(tmp_path: Path) -> None:
    import pycolmap

    workspace, truth = known_scene(tmp_path)
    (tmp_path / "poses").mkdir()
    for image in (image for image in truth.images.values() if image.name != "1.jpg"):
        matrix = np.vstack([image.cam_from_world().inverse().matrix(), [0, 0, 0, 1]])
        np.savetxt(tmp_path / "poses" / f"{image.name[:-4]}.txt", matrix, fmt="%.12f")
    done = triangulate(workspace, tmp_path / "poses", tmp_path / "images")
    model = pycolmap.Reconstruction(done.folder)
    assert done.without_pose == ("1.jpg",) and done.exit_status == 1 and not done.given_intrinsics
    assert "without a pose: 1 (1.jpg)" in done.format() and "intrinsics unknown, refined" in done.format()
    assert next(iter(model.cameras.values())).params[0] == pytest.approx(PARAMS[0], rel=1e-3)  # the guess was 614
    true = poses_of(truth)
    assert all(np.allclose(pose, true[name]) for name, pose in poses_of(model).items())


def test_poses_of_other_photos_are_doubtful(tmp_path: Path) -> None:
    workspace, truth = known_scene(tmp_path)
    for image_id, image in truth.images.items():
        image.name = f"{(image_id + 2) % 6 + 1}.jpg"
    (tmp_path / "wrong").mkdir()
    truth.write(tmp_path / "wrong")
    with pytest.raises(LgbatchError, match=r"no match agrees with the poses|doubtful"):
        done = triangulate(workspace, tmp_path / "wrong", tmp_path / "images")
        assert done.exit_status == 1
        raise LgbatchError(done.format())


def test_wrong_input_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no .*truth"):
        triangulate(Workspace(tmp_path), tmp_path / "truth", tmp_path)
    workspace, truth = known_scene(tmp_path)
    for image in truth.images.values():
        image.name = f"other{image.image_id}.jpg"
    (tmp_path / "others").mkdir()
    truth.write(tmp_path / "others")
    with pytest.raises(
        InputError, match=r"no pose of .*others \(such as other\d.jpg\) is of an image \(such as \d.jpg\)"
    ):
        triangulate(workspace, tmp_path / "others", tmp_path / "images")
    workspace.database.unlink()
    with pytest.raises(InputError, match="run `lgbatch extract`, `lgbatch pairs` and `lgbatch match` first"):
        triangulate(workspace, tmp_path / "truth", tmp_path / "images")
    assert not workspace.triangulated.exists()
