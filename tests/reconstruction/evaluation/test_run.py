"""The evaluation of a model in a folder: which cameras count, given intrinsics, and the command."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from typer.testing import CliRunner

from lgbatch.cli import main as cli
from lgbatch.colmap.sensors.calibration import KnownCamera as Intrinsics
from lgbatch.errors import InputError, ReconstructionError
from lgbatch.reconstruction.evaluation.adjust import adjust_to
from lgbatch.reconstruction.evaluation.run import run
from tests.reconstruction.evaluation import helpers
from tests.reconstruction.evaluation.helpers import NERFSTUDIO_CAMERA, PARAMS, SIZE, Scene

WRONG = Intrinsics("PINHOLE", (*PARAMS[:2], PARAMS[2] + 25, PARAMS[3] - 15), SIZE)


@pytest.fixture
def scene() -> Scene:
    return helpers.scene("frame-{:06}.color.png", images=8)


def without_last(model: pycolmap.Reconstruction) -> pycolmap.Reconstruction:
    """The model without the image of the highest number."""
    last = max(model.images.values(), key=lambda image: image.name)
    model.deregister_frame(last.frame_id)
    return model


def bent(model: pycolmap.Reconstruction) -> pycolmap.Reconstruction:
    """The model adjusted to a wrong principal point."""
    return adjust_to(model, {image.name: WRONG for image in model.images.values()}, 1)


def make_workspace(folder: Path, scene: Scene) -> Path:
    """A workspace with the model, and a database that has its images."""
    (folder / "sparse").mkdir(parents=True)
    helpers.write_colmap(folder / "sparse" / "0", scene.model, text=False)
    with pycolmap.Database.open(folder / "database.db") as db:
        for camera in scene.model.cameras.values():
            db.write_camera(camera, use_camera_id=True)
        for image in scene.model.images.values():
            db.write_image(pycolmap.Image(name=image.name, camera_id=image.camera_id))
    return folder


def test_known_cameras_that_are_not_registered_count(scene: Scene, tmp_path: Path) -> None:
    truth = helpers.write_poses(tmp_path / "truth", scene.poses)
    model = helpers.write_colmap(tmp_path / "model", without_last(scene.model), text=True)
    evaluation = run(model, truth)
    assert (evaluation.accuracy.registered, evaluation.accuracy.known) == (7, 8)
    assert evaluation.unregistered == ("frame-000007",)
    assert evaluation.accuracy.auc[0.5] == pytest.approx(100 * 21 / 28, abs=0.1)
    assert evaluation.accuracy.position_mean is not None and evaluation.accuracy.position_mean < 1e-6


def test_only_cameras_of_the_photos_count(scene: Scene, tmp_path: Path) -> None:
    more = dict(scene.poses) | {f"frame-{i:06}": np.eye(4) for i in range(100, 120)}
    truth = helpers.write_poses(tmp_path / "truth", more)
    out = make_workspace(tmp_path / "out", scene)
    for model in out, out / "sparse" / "0":
        evaluation = run(model, truth)
        assert (evaluation.accuracy.registered, evaluation.accuracy.known) == (8, 8)
        assert (evaluation.not_counted, evaluation.without_truth) == (20, 0)
    assert run(helpers.write_colmap(tmp_path / "model", scene.model, text=False), truth).accuracy.known == 28
    (tmp_path / "photos").mkdir()
    for name in [*list(scene.poses)[:4], "frame-000110.color.png"]:
        (tmp_path / "photos" / name).touch()
    evaluation = run(out, truth, photos=tmp_path / "photos")
    assert (evaluation.accuracy.registered, evaluation.accuracy.known) == (4, 5)
    assert evaluation.unregistered == ("frame-000110.color.png",)
    assert (evaluation.not_counted, evaluation.without_truth) == (23, 4)


def test_a_trajectory_counts_photos_alone(scene: Scene, tmp_path: Path) -> None:
    times = [100.0 + i for i in range(8)]
    truth = helpers.write_trajectory(tmp_path / "truth.txt", scene.poses, times)
    for image in scene.model.images.values():
        image.name = f"{100 + int(image.name[6:12])}.002.png"
    model = helpers.write_colmap(tmp_path / "model", without_last(scene.model), text=False)
    evaluation = run(model, truth)
    assert (evaluation.accuracy.registered, evaluation.accuracy.known, evaluation.not_counted) == (7, 7, 1)
    assert evaluation.accuracy.auc[0.5] > 99.9 and evaluation.counted == "registered"
    evaluation = run(make_workspace(tmp_path / "out", scene), truth)
    assert (evaluation.accuracy.registered, evaluation.accuracy.known) == (7, 8)
    assert evaluation.unregistered == ("107.002.png",) and evaluation.counted == "photos"


def test_images_without_truth_and_ambiguous_names_are_told(scene: Scene, tmp_path: Path) -> None:
    names = sorted(scene.poses)
    for image in scene.model.images.values():
        image.name = {names[0]: "a/frame-000001.png", names[1]: "b/frame-000001.png"}.get(image.name, image.name)
    poses = {name: pose for name, pose in scene.poses.items() if name not in (names[0], names[7])}
    truth = helpers.write_poses(tmp_path / "truth", poses)
    evaluation = run(helpers.write_colmap(tmp_path / "model", scene.model, text=False), truth)
    assert evaluation.accuracy.known == 5
    assert (evaluation.ambiguous, evaluation.without_truth) == (("frame-000001",), 3)


@pytest.mark.parametrize("own_cameras", [False, True])
def test_given_intrinsics_tell_features_from_calibration(own_cameras: bool, scene: Scene, tmp_path: Path) -> None:
    path = helpers.write_nerfstudio(tmp_path / "transforms.json", scene.poses, **NERFSTUDIO_CAMERA)
    if own_cameras:  # the frames' intrinsics differ, if by little
        data = json.loads(path.read_text())
        for number, frame in enumerate(data["frames"][:6]):
            frame["fl_x"] = helpers.FOCAL[0] + 1e-7 * number
        path.write_text(json.dumps(data))
    model = helpers.write_colmap(tmp_path / "model", bent(scene.model), text=False)
    before = {file.name: file.read_bytes() for file in model.iterdir()}
    evaluation = run(model, path, intrinsics="truth")
    assert evaluation.adjusted and evaluation.with_intrinsics == 8
    assert evaluation.accuracy.auc[1.0] < 50 < 99.9 < evaluation.adjusted.auc[1.0]
    assert evaluation.adjusted.position_median is not None and evaluation.adjusted.position_median < 1e-4
    assert evaluation.adjusted_reprojection is not None
    assert evaluation.adjusted_reprojection < 1e-3 < evaluation.reprojection
    assert before == {file.name: file.read_bytes() for file in model.iterdir()}


def test_intrinsics_may_come_from_a_calibration_of_another_size(scene: Scene, tmp_path: Path) -> None:
    truth = helpers.write_poses(tmp_path / "truth", scene.poses)
    model = helpers.write_colmap(tmp_path / "model", bent(scene.model), text=False)
    twice = " ".join(str(2 * value) for value in (*SIZE, *PARAMS))
    (tmp_path / "cameras.txt").write_text(f"1 PINHOLE {twice}\n")
    evaluation = run(model, truth, intrinsics=str(tmp_path / "cameras.txt"))
    assert evaluation.adjusted and evaluation.adjusted.auc[1.0] > 99.9
    with pytest.raises(InputError, match="has no intrinsics"):
        run(model, truth, intrinsics="truth")
    (tmp_path / "cameras.txt").write_text(f"1 PINHOLE 480 640 {' '.join(map(str, PARAMS))}\n")
    with pytest.raises(ReconstructionError, match="640x480, but its camera"):
        run(model, truth, intrinsics=str(tmp_path / "cameras.txt"))


def test_rigs_keep_their_shape_if_each_camera_has_one_calibration() -> None:
    pycolmap.set_random_seed(0)
    options = pycolmap.SyntheticDatasetOptions(
        num_rigs=1, num_cameras_per_rig=2, num_frames_per_rig=4, num_points3D=100
    )
    model = pycolmap.synthesize_dataset(options)
    given = {
        image.name: Intrinsics(camera.model_name, tuple(map(float, camera.params)), (camera.width, camera.height))
        for image in model.images.values()
        for camera in [model.cameras[image.camera_id]]
    }
    assert adjust_to(pycolmap.Reconstruction(model), given, 1).num_frames() == 4
    name = next(iter(given))
    given[name] = dataclasses.replace(given[name], params=tuple(value + 1e-7 for value in given[name].params))
    split = adjust_to(pycolmap.Reconstruction(model), given, 1)
    assert (split.num_frames(), split.num_cameras(), split.num_points3D()) == (8, 3, model.num_points3D())
    assert split.compute_mean_reprojection_error() < 1e-3


def test_the_command_prints_a_table_or_json_and_its_status_tells(scene: Scene, tmp_path: Path) -> None:
    truth = helpers.write_poses(tmp_path / "truth", scene.poses)
    model = helpers.write_colmap(tmp_path / "all", scene.model, text=False)
    less = helpers.write_colmap(tmp_path / "less", without_last(scene.model), text=False)
    runner = CliRunner()
    done = runner.invoke(cli.app, ["evaluate", str(model), "--truth", str(truth)])
    assert done.exit_code == 0
    assert "8 of 8 known cameras registered" in done.stdout and "pose files, 8 cameras" in done.stdout
    done = runner.invoke(cli.app, ["evaluate", str(less), "--truth", str(truth), "--json"])
    assert done.exit_code == 1
    values = json.loads(done.stdout)
    assert values["unregistered"] == ["frame-000007"] and values["given_intrinsics"] is None
    assert values["accuracy"]["relative_pose_auc"]["10"] == pytest.approx(75, abs=0.1)
    assert (
        "not registered: frame-000007" in runner.invoke(cli.app, ["evaluate", str(less), "--truth", str(truth)]).stdout
    )


@pytest.mark.parametrize(("name", "message"), [("truth", "no COLMAP model in"), ("absent", "no COLMAP model in")])
def test_a_folder_without_a_model_is_an_error(name: str, message: str, scene: Scene, tmp_path: Path) -> None:
    truth = helpers.write_poses(tmp_path / "truth", scene.poses)
    done = CliRunner().invoke(cli.app, ["evaluate", str(tmp_path / name), "--truth", str(truth)])
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr


def test_truth_of_other_photos_is_an_error(scene: Scene, tmp_path: Path) -> None:
    truth = helpers.write_poses(tmp_path / "truth", {f"other-{name}": pose for name, pose in scene.poses.items()})
    model = helpers.write_colmap(tmp_path / "model", scene.model, text=False)
    with pytest.raises(InputError, match=r"such as other-frame-000000\) belongs to an image"):
        run(model, truth)
