from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest

from lgbatch.errors import InputError
from lgbatch.pipelines import scene


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Render photos of a quarter of the size."""
    monkeypatch.setattr(scene, "SIZE", (256, 192))
    monkeypatch.setattr(scene, "FOCAL", scene.FOCAL / 4)


def test_photos_have_the_size_of_their_cameras_and_depend_on_the_seed_only(tmp_path: Path, small: None) -> None:
    known = scene.render(tmp_path / "new" / "a")
    scene.render(tmp_path / "b", seed=0)
    scene.render(tmp_path / "c", seed=1)
    assert list(known) == sorted(known) == sorted(p.name for p in (tmp_path / "b").iterdir())
    assert len(known) == 12
    for name, camera in known.items():
        first = (tmp_path / "new" / "a" / name).read_bytes()
        assert first == (tmp_path / "b" / name).read_bytes()
        assert first != (tmp_path / "c" / name).read_bytes()
        image = cv2.imread(str(tmp_path / "b" / name))
        assert image is not None and image.shape == (192, 256, 3)
        assert camera.size == (256, 192)


def test_cameras_are_upright_and_distinct_and_inside_the_room() -> None:
    poses = [camera.camera_from_world for camera in scene.cameras().values()]
    for pose in poses:
        np.testing.assert_allclose(pose[:, :3] @ pose[:, :3].T, np.eye(3), atol=1e-12)
        assert np.linalg.det(pose[:, :3]) > 0
        assert pose[1, 1] > 0.95  # The image's down is the world's down.
    centres = [-pose[:, :3].T @ pose[:, 3] for pose in poses]
    assert min(np.linalg.norm(a - b) for a, b in combinations(centres, 2)) > 0.2
    assert all(abs(x) < 3.4 and -3 < y < 0 and z > -1 for x, y, z in centres)


def test_without_scikit_image_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scene.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'lgbatch\[demo\]'"):
        scene.render(tmp_path)


def test_a_folder_that_cannot_be_created_is_an_error(tmp_path: Path, small: None) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write photos"):
        scene.render(tmp_path / "file")
