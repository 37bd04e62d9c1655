from pathlib import Path

import cv2
import numpy as np
import pycolmap
import pytest

from lgbatch.errors import InputError
from lgbatch.pipelines.pictures import model as picture
from lgbatch.pipelines.pictures.model import ACCENT, draw_model
from lgbatch.types import ByteArray

SIZE = (480, 270)


def model(folder: Path, *, cameras: int = 6, points: int = 60) -> "pycolmap.Reconstruction":
    """Write a model of cameras around red and green points to `folder`."""
    pycolmap.set_random_seed(0)
    options = pycolmap.SyntheticDatasetOptions(
        num_rigs=1, num_frames_per_rig=cameras, num_points3D=max(points, 8), num_points2D_without_point3D=0
    )
    reconstruction = pycolmap.synthesize_dataset(options)
    for i in list(reconstruction.points3D)[points:]:
        reconstruction.delete_point3D(i)
    for i, point in reconstruction.points3D.items():
        point.color = np.array([210, 20, 20] if i % 2 else [20, 210, 20], np.uint8)
    reconstruction.write(str(folder))
    return reconstruction


def draw(folder: Path) -> ByteArray:
    """Draw the model in `folder`; returns the picture, (H, W, 3) BGR."""
    draw_model(folder, folder / "model.png", size=SIZE)
    return np.asarray(cv2.imread(str(folder / "model.png")), np.uint8)


def count_close(pixels: ByteArray, bgr: tuple[int, int, int], tolerance: int) -> int:
    """The number of pixels whose channels are within `tolerance` of a colour."""
    return int((np.abs(pixels.astype(int) - bgr).max(axis=2) <= tolerance).sum())


def test_the_picture_shows_points_and_cameras_in_their_colours(tmp_path: Path) -> None:
    model(tmp_path)
    pixels = draw(tmp_path)
    assert pixels.shape == (270, 480, 3)
    # The picture is BGR, slightly brighter than the model, with fog in the distance.
    assert count_close(pixels, (23, 23, 220), 40) > 50
    assert count_close(pixels, (23, 220, 23), 40) > 50
    assert count_close(pixels, ACCENT, 20) > 20
    assert count_close(pixels, ACCENT[::-1], 20) == 0


def test_a_model_of_two_cameras_is_drawn(tmp_path: Path) -> None:
    model(tmp_path, cameras=2, points=8)
    assert count_close(draw(tmp_path), ACCENT, 20) > 20


@pytest.mark.parametrize("cameras", [1, 6])
def test_cameras_without_points_are_drawn(tmp_path: Path, cameras: int) -> None:
    model(tmp_path, cameras=cameras, points=0)
    assert count_close(draw(tmp_path), ACCENT, 20) > 20


def test_an_empty_model_has_only_a_caption(tmp_path: Path) -> None:
    pycolmap.Reconstruction().write(str(tmp_path))
    pixels = draw(tmp_path)
    assert count_close(pixels, ACCENT, 20) == 0
    assert pixels[-30:].max() > 120 > pixels[:-30].max()


def test_an_outlier_does_not_shrink_the_rest(tmp_path: Path) -> None:
    reconstruction = model(tmp_path)
    before = draw(tmp_path)
    reconstruction.add_point3D(np.array([1e4, 2e4, 3e4]), pycolmap.Track())
    reconstruction.write(str(tmp_path))
    # Only the number of points in the caption changes.
    assert np.abs(before[:-30].astype(int) - draw(tmp_path)[:-30]).mean() < 1


@pytest.mark.parametrize("size", [(400, 100), (100, 400)])
def test_all_points_are_in_the_frame(size: tuple[int, int]) -> None:
    points = np.random.default_rng(0).normal(size=(50, 3)) * (5, 2, 1)
    rays = points - picture._fit(points, size)
    assert rays[:, 2].min() > 0
    slopes = np.abs(rays[:, :2] / rays[:, 2:]).max(axis=0) / np.tan(picture._FIELD / 2)
    extent = slopes / (size[0] / size[1], 1)
    assert extent.max() == pytest.approx(picture._MARGIN)


def test_the_view_is_upright_and_from_behind_and_above() -> None:
    view = picture._viewpoint(np.eye(3)[None])
    assert view @ view.T == pytest.approx(np.eye(3))
    assert np.linalg.det(view) == pytest.approx(1)
    right, down, forward = view  # The cameras look along z, y is down.
    assert right[1] == pytest.approx(0)
    assert down[1] > 0.8
    assert forward[2] > 0.8
    assert forward[1] == pytest.approx(np.sin(picture._PITCH))


def test_cameras_without_a_mean_direction_have_a_view() -> None:
    around = np.stack([cv2.Rodrigues(np.array([0, a, 0]))[0] for a in np.radians([0.0, 90, 180, 270])])
    view = picture._viewpoint(around)
    assert view @ view.T == pytest.approx(np.eye(3))
    assert view[1, 1] > 0.8
    # Looking straight down, in all headings.
    downward = np.stack([cv2.Rodrigues(np.array([0, 0, a]))[0] for a in np.radians([0.0, 90, 180, 270])])
    assert picture._viewpoint(downward)[2, 2] == pytest.approx(np.sin(picture._PITCH))


def test_a_missing_model_or_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no COLMAP model"):
        draw_model(tmp_path, tmp_path / "model.png")
    model(tmp_path)
    with pytest.raises(InputError, match="cannot write the picture"):
        draw_model(tmp_path, tmp_path / "missing" / "model.png", size=SIZE)
