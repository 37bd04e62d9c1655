"""The reader of Strecha's camera files."""

from pathlib import Path

import numpy as np
import pytest

from lgbatch.errors import InputError
from lgbatch.reconstruction.evaluation.formats.strecha import read_strecha, write_strecha

STRECHA = "100 0 320\n0 101 240\n0 0 1\n0 0 0\n0 -1 0\n1 0 0\n0 0 1\n{centre}\n640 480\n"


def test_strecha_poses_are_converted_to_camera_from_world(tmp_path: Path) -> None:
    (tmp_path / "a.b.jpg.camera").write_text(STRECHA.format(centre="5 6 7"))
    (tmp_path / "README").write_text("something else")
    cameras = read_strecha(tmp_path)
    assert list(cameras) == ["a.b.jpg"]
    camera = cameras["a.b.jpg"]
    assert camera.size == (640, 480)
    np.testing.assert_allclose(camera.camera_from_world @ [5, 6, 7, 1], 0, atol=1e-12)
    # Its x axis points along world y (first column of world_from_camera): 1 to the right at depth 2.
    np.testing.assert_allclose(camera.project(np.array([[5.0, 7, 9]])), [[320 + 50, 240]])


@pytest.mark.parametrize("centre", ["5 6", "5 6 7 8", "5 six 7"])
def test_a_damaged_strecha_file_is_an_error(tmp_path: Path, centre: str) -> None:
    (tmp_path / "a.jpg.camera").write_text(STRECHA.format(centre=centre))
    with pytest.raises(InputError, match=r"a\.jpg\.camera"):
        read_strecha(tmp_path)


def test_a_strecha_file_without_a_rotation_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jpg.camera").write_text(STRECHA.format(centre="5 6 7").replace("0 -1 0", "0 1 0"))
    with pytest.raises(InputError, match="not a rotation matrix"):
        read_strecha(tmp_path)


def test_a_folder_without_strecha_cameras_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no \.camera files"):
        read_strecha(tmp_path)


def test_written_cameras_are_read_back(tmp_path: Path) -> None:
    (tmp_path / "a.jpg.camera").write_text(STRECHA.format(centre="5 6 7"))
    camera = read_strecha(tmp_path)["a.jpg"]
    write_strecha({"b.jpg": camera}, tmp_path / "again")
    again = read_strecha(tmp_path / "again")["b.jpg"]
    np.testing.assert_allclose(again.camera_from_world, camera.camera_from_world, atol=1e-12)
    np.testing.assert_array_equal(again.calibration, camera.calibration)
    assert again.size == camera.size
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write to"):
        write_strecha({"b.jpg": camera}, tmp_path / "file")
