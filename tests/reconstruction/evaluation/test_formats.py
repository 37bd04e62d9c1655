"""Each format of ground truth gives the cameras that were written, and what is not ground truth is an error."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lgbatch.errors import InputError
from lgbatch.reconstruction.evaluation.read_truth import read_truth
from lgbatch.reconstruction.evaluation.run import run
from lgbatch.reconstruction.evaluation.truth import Truth
from tests.reconstruction.evaluation import helpers
from tests.reconstruction.evaluation.helpers import NERFSTUDIO_CAMERA, PARAMS, SIZE, Scene

TIMES = [10.0 + i / 30 for i in range(6)]
WRITERS: dict[str, Callable[[Path, Scene], Path]] = {
    "Strecha .camera files": lambda path, scene: helpers.write_strecha(path, scene.poses),
    "COLMAP model": lambda path, scene: helpers.write_colmap(path, scene.model, text=False),
    "COLMAP model, text": lambda path, scene: helpers.write_colmap(path, scene.model, text=True),
    "pose files": lambda path, scene: helpers.write_poses(path, scene.poses),
    "pose files, NAME.pose.txt": lambda path, scene: helpers.write_poses(path, scene.poses, ".pose.txt"),
    "transforms.json": lambda path, scene: helpers.write_nerfstudio(path, scene.poses, **NERFSTUDIO_CAMERA),
}


@pytest.fixture(scope="module")
def scene() -> Scene:
    return helpers.scene("{:04}.jpg")


def check_poses(truth: Truth, scene: Scene) -> None:
    assert len(truth.cameras) == len(scene.poses) and truth.skipped == 0
    for (_, camera), pose in zip(sorted(truth.cameras.items()), scene.poses.values(), strict=True):
        np.testing.assert_allclose(camera.camera_from_world, np.linalg.inv(pose)[:3], atol=1e-9)


@pytest.mark.parametrize("kind", WRITERS)
def test_each_format_is_recognised_and_read(kind: str, scene: Scene, tmp_path: Path) -> None:
    truth = read_truth(WRITERS[kind](tmp_path / "truth", scene))
    assert truth.kind == kind.partition(",")[0]
    check_poses(truth, scene)
    stems = {name.rpartition("/")[2].partition(".")[0] for name in truth.cameras}
    assert stems == {name.partition(".")[0] for name in scene.poses}
    for camera in truth.cameras.values():
        if kind.startswith("pose files"):
            assert camera.intrinsics is None
        else:
            assert camera.intrinsics and camera.intrinsics.size == SIZE
            np.testing.assert_allclose(camera.intrinsics.params[:4], PARAMS)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_model_is_accurate_against_its_own_cameras(kind: str, scene: Scene, tmp_path: Path) -> None:
    model = helpers.write_colmap(tmp_path / "model", scene.model, text=False)
    evaluation = run(model, WRITERS[kind](tmp_path / "truth", scene))
    assert (evaluation.accuracy.registered, evaluation.accuracy.known) == (6, 6)
    assert evaluation.accuracy.auc[0.5] > 99.9
    assert evaluation.unregistered == evaluation.ambiguous == ()


def test_a_workspace_is_the_truth_of_its_largest_model(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "sparse").mkdir()
    helpers.write_colmap(tmp_path / "sparse" / "0", scene.model, text=False)
    check_poses(read_truth(tmp_path), scene)


def test_a_trajectory_has_times_instead_of_names(scene: Scene, tmp_path: Path) -> None:
    path = helpers.write_trajectory(tmp_path / "groundtruth.txt", scene.poses, TIMES)
    path.write_text(path.read_text() + "\n11.5 nan nan nan nan nan nan nan\n")
    truth = read_truth(path)
    assert truth.skipped == 1 and truth.times and [*truth.times.values()] == pytest.approx(TIMES)
    for (_, camera), pose in zip(sorted(truth.cameras.items()), scene.poses.values(), strict=True):
        np.testing.assert_allclose(camera.camera_from_world, np.linalg.inv(pose)[:3], atol=1e-9)


@pytest.mark.parametrize("row", ["1 0 0 inf", "-1.#IND 0 0 0", "nan nan nan nan"])
def test_a_pose_that_is_not_finite_and_other_text_are_skipped(row: str, scene: Scene, tmp_path: Path) -> None:
    folder = helpers.write_poses(tmp_path / "truth", scene.poses)
    (folder / "9999.txt").write_text(f"{row}\n0 1 0 0\n0 0 1 0\n0 0 0 1\n")
    (folder / "README.txt").write_text("Poses of a camera.\n")
    truth = read_truth(folder)
    assert (truth.skipped, len(truth.cameras)) == (2, 6)


def test_a_frame_of_nerfstudio_may_have_intrinsics_of_its_own(scene: Scene, tmp_path: Path) -> None:
    path = helpers.write_nerfstudio(tmp_path / "transforms.json", scene.poses, w=SIZE[0], h=SIZE[1], camera_angle_x=1.0)
    data = json.loads(path.read_text())
    data["frames"][1] |= {"fl_x": 400, "k1": 0.1, "k3": 0.01}
    data["frames"][2] |= {"camera_model": "OPENCV_FISHEYE", "fl_x": 300, "k4": 0.02}
    data["frames"][3] |= {"camera_model": "EQUIRECTANGULAR"}
    data["frames"][4]["transform_matrix"][0][3] = None
    path.write_text(json.dumps(data))
    truth = read_truth(tmp_path)  # the folder of the file
    assert truth.skipped == 1
    found = [camera.intrinsics for camera in truth.cameras.values()]
    assert found[0] and found[1] and found[2] and found[3] is None
    assert found[0].params[:4] == pytest.approx((320 / np.tan(0.5), 320 / np.tan(0.5), 320, 240))
    assert (found[1].model, found[1].params[0]) == ("FULL_OPENCV", 400)
    assert (found[2].model, found[2].params[-1]) == ("OPENCV_FISHEYE", 0.02)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "1 2 3", "no ground truth in"),
        ("a.json", '{"frames": [{"file_path": "a.jpg"}]}', "transform_matrix"),
        ("a.json", "{", "cannot read"),
        ("a.json", '{"frames": [{"file_path": "a", "transform_matrix": [[2,0,0,0],[0,2,0,0],[0,0,2,0]]}]}', "scale"),
        (
            "a.json",
            '{"w": 2, "h": 2, "fl_x": NaN, "frames": [{"file_path": "a", "transform_matrix": [[1, 0, 0, 0]]}]}',
            "expected numbers",
        ),
        ("a.txt", "1 0 0 0 0 0 0 1\n1 2\n", "line 2"),
        ("a.txt", "1 0 0 0 0 0 0 5\n", "quaternion"),
    ],
)
def test_a_file_that_is_no_ground_truth_is_an_error(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_truth(tmp_path / name)


def test_a_folder_that_has_no_ground_truth_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no ground truth in"):
        read_truth(tmp_path)
    with pytest.raises(InputError, match="there is no"):
        read_truth(tmp_path / "absent")
    (tmp_path / "a.txt").write_text("1 0 0 0\n0 2 0 0\n0 0 1 0\n0 0 0 1\n")
    with pytest.raises(InputError, match="not a camera pose"):
        read_truth(tmp_path)
    (tmp_path / "a.txt").write_text("1 0 0 x\n0 1 0 0\n0 0 1 0\n0 0 0 1\n")
    with pytest.raises(InputError, match="4 x 4 numbers"):
        read_truth(tmp_path)
