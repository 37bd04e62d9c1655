"""Accuracy of a model against ground-truth cameras."""

import json
from pathlib import Path

import numpy as np
import pytest

from lgbatch.errors import InputError
from lgbatch.reconstruction.evaluation.evaluate import compare, evaluate
from lgbatch.reconstruction.evaluation.pose_errors import pose_auc, relative_pose_errors, umeyama
from lgbatch.reconstruction.evaluation.truth import Array, KnownCamera


def rotation(axis: str, degrees: float) -> Array:
    i = "xyz".index(axis)
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    m = np.eye(3)
    m[(i + 1) % 3, (i + 1) % 3] = m[(i + 2) % 3, (i + 2) % 3] = c
    m[(i + 2) % 3, (i + 1) % 3], m[(i + 1) % 3, (i + 2) % 3] = s, -s
    return m


def pose(camera_from_world: Array, centre: Array) -> Array:
    return np.column_stack([camera_from_world, -camera_from_world @ centre])


def transformed(camera_from_world: Array, scale: float, rotation: Array, translation: Array) -> Array:
    """The same camera after a similarity transform of the world."""
    centre = -camera_from_world[:, :3].T @ camera_from_world[:, 3]
    return pose(camera_from_world[:, :3] @ rotation.T, scale * rotation @ centre + translation)


def known(poses: dict[str, Array]) -> dict[str, KnownCamera]:
    return {name: KnownCamera(p, np.eye(3), (640, 480)) for name, p in poses.items()}


@pytest.fixture
def poses() -> dict[str, Array]:
    rng = np.random.default_rng(0)
    return {f"{i}.jpg": pose(rotation("y", 20 * i) @ rotation("x", 5 * i), rng.uniform(-1, 1, 3)) for i in range(6)}


def test_a_model_in_another_frame_and_scale_has_no_error(poses: dict[str, Array]) -> None:
    estimated = {
        name: transformed(p, 7.0, rotation("z", 130) @ rotation("x", 40), np.array([9.0, -2, 4]))
        for name, p in poses.items()
    }
    accuracy = compare(estimated, known(poses))
    assert (accuracy.registered, accuracy.known) == (6, 6)
    assert min(accuracy.auc.values()) > 99.999
    assert accuracy.position_max is not None and accuracy.position_max < 1e-12
    assert accuracy.rotation_max is not None and accuracy.rotation_max < 1e-12
    assert accuracy.relative_rotation_median is not None and accuracy.relative_rotation_median < 1e-12


def test_a_rotated_camera_has_an_error_of_its_angle(poses: dict[str, Array]) -> None:
    centre = -poses["2.jpg"][:, :3].T @ poses["2.jpg"][:, 3]
    estimated = poses | {"2.jpg": pose(rotation("z", 3) @ poses["2.jpg"][:, :3], centre)}
    accuracy = compare(estimated, known(poses))
    assert accuracy.rotation_max == pytest.approx(3)
    assert accuracy.rotation_median == pytest.approx(0, abs=1e-9)
    assert accuracy.position_max == pytest.approx(0, abs=1e-9)
    errors = relative_pose_errors(np.stack([*estimated.values()]), np.stack([*poses.values()]))
    assert (errors > 1).sum() == 5  # its pairs: the rotation also changes the direction of their baselines
    assert errors.max() >= 3 - 1e-9


def test_a_shifted_camera_has_an_error_of_its_baseline_direction() -> None:
    centres = np.array([[0.0, 0, 0], [1, 0, 0]])
    true = np.stack([pose(np.eye(3), c) for c in centres])
    estimated = np.stack([pose(np.eye(3), centres[0]), pose(np.eye(3), [np.cos(0.1), np.sin(0.1), 0])])
    assert relative_pose_errors(estimated, true) == pytest.approx([np.degrees(0.1)])
    backwards = np.stack([pose(np.eye(3), centres[0]), pose(np.eye(3), -centres[1])])
    assert relative_pose_errors(backwards, true) == pytest.approx([180])


def test_coincident_estimated_cameras_have_an_error() -> None:
    true = np.stack([pose(np.eye(3), c) for c in np.eye(3)])
    coincident = np.stack([pose(np.eye(3), np.zeros(3))] * 3)
    assert relative_pose_errors(coincident, true) == pytest.approx([90, 90, 90])
    assert relative_pose_errors(true, coincident) == pytest.approx([0, 0, 0])  # the true baselines have no direction


def test_pairs_of_unregistered_cameras_count_as_wrong(poses: dict[str, Array]) -> None:
    estimated = {name: p for name, p in poses.items() if name not in ("0.jpg", "1.jpg")}
    accuracy = compare(estimated | {"unknown.jpg": poses["0.jpg"]}, known(poses))
    assert (accuracy.registered, accuracy.known) == (4, 6)
    assert accuracy.auc[10.0] == pytest.approx(100 * 6 / 15)
    assert accuracy.position_max is not None and accuracy.position_max < 1e-12


def test_auc_is_the_area_under_the_recall_curve() -> None:
    # Through (0, 0), (1, 1/4), (3, 1/2), then level to 5.
    assert pose_auc(np.array([3, np.inf, 1, np.inf]), 5.0) == pytest.approx(100 * (0.125 + 0.75 + 1) / 5)
    assert pose_auc(np.array([3, np.inf, 1, np.inf]), 2.0) == pytest.approx(100 * (0.125 + 0.25) / 2)
    assert pose_auc(np.full(4, np.inf), 5.0) == 0
    assert pose_auc(np.zeros(4), 5.0) == 100


def test_aligned_errors_are_none_if_the_alignment_is_undetermined(poses: dict[str, Array]) -> None:
    two = compare(dict(list(poses.items())[:2]), known(poses))
    assert two.registered == 2 and two.position_median is None and two.rotation_max is None
    assert two.relative_rotation_median == pytest.approx(0, abs=1e-12)
    collinear = {f"{i}": pose(rotation("y", i), np.array([i, 2.0 * i, 0])) for i in range(5)}
    assert compare(collinear, known(collinear)).position_median is None
    empty = compare({}, known(poses))
    assert empty.registered == 0 and empty.auc[10.0] == 0 and empty.relative_rotation_median is None


def test_accuracy_is_serializable_as_json(poses: dict[str, Array]) -> None:
    values = json.loads(json.dumps(compare(poses, known(poses)).as_dict(), allow_nan=False))
    assert list(values["relative_pose_auc"]) == ["0.5", "1", "3", "5", "10"]
    assert values["registered_cameras"] == values["known_cameras"] == 6
    json.dumps(compare({}, known(poses)).as_dict(), allow_nan=False)


def test_a_single_known_camera_is_an_error(poses: dict[str, Array]) -> None:
    with pytest.raises(InputError, match="at least two"):
        compare(poses, known({"0.jpg": poses["0.jpg"]}))


def test_umeyama_recovers_a_similarity_and_never_returns_a_reflection() -> None:
    points = np.random.default_rng(1).normal(size=(8, 3))
    expected, shift = rotation("y", 70) @ rotation("z", 20), np.array([1.0, 2, 3])
    fit = umeyama(points, 2.5 * points @ expected.T + shift)
    assert fit is not None
    assert fit[0] == pytest.approx(2.5)
    np.testing.assert_allclose(fit[1], expected, atol=1e-12)
    np.testing.assert_allclose(fit[2], shift, atol=1e-12)
    mirrored = umeyama(points, points * [1, 1, -1])
    assert mirrored is not None and np.linalg.det(mirrored[1]) == pytest.approx(1)


def test_a_model_in_memory_and_in_its_folder_have_equal_accuracy(tmp_path: Path) -> None:
    import pycolmap

    pycolmap.set_random_seed(0)
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_frames_per_rig, options.num_points3D = 2, 3, 20
    model = pycolmap.synthesize_dataset(options)
    truth = known({im.name: np.asarray(im.cam_from_world().matrix()) for im in model.images.values()})
    model.transform(pycolmap.Sim3d(3.0, pycolmap.Rotation3d(rotation("x", 33)), np.array([1.0, 2, 3])))
    model.write(tmp_path)
    for accuracy in evaluate(model, truth), evaluate(tmp_path, truth):
        assert accuracy.registered == accuracy.known == 6
        assert accuracy.auc[0.5] > 99.99
        assert accuracy.position_max is not None and accuracy.position_max < 1e-9
    assert evaluate(pycolmap.Reconstruction(), truth).registered == 0


def test_a_folder_without_a_model_is_an_error(tmp_path: Path, poses: dict[str, Array]) -> None:
    with pytest.raises(InputError, match="no COLMAP model in"):
        evaluate(tmp_path, known(poses))


def test_a_model_with_inconsistent_files_is_an_error(tmp_path: Path, poses: dict[str, Array]) -> None:
    import pycolmap

    options = pycolmap.SyntheticDatasetOptions(num_rigs=2, num_frames_per_rig=1, num_points3D=10)
    pycolmap.synthesize_dataset(options).write(tmp_path)
    (tmp_path / "rigs.bin").write_bytes(bytes(8))
    with pytest.raises(InputError, match=r"the files of the model .* are damaged"):
        evaluate(tmp_path, known(poses))
