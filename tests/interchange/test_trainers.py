"""The folders of `lgbatch undistort`, read as the programs say that they read them."""

from pathlib import Path

import numpy as np
import pycolmap
import pytest
from PIL import Image

from lgbatch.interchange.source import find_source
from lgbatch.interchange.undistort import undistort
from tests.interchange import helpers

NAMES = ("day 1/IMG.1.png", "day 2/IMG.1.png", "day 2/IMG.2.jpg")


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    helpers.scene(tmp_path, NAMES)
    undistort(find_source(tmp_path, images=tmp_path / "photos"), tmp_path / "flat", flat=True)
    return tmp_path / "flat"


def lines(path: Path) -> list[list[str]]:
    """The words of the lines of a text file that are no comments."""
    return [line.split() for line in path.read_text().splitlines() if not line.startswith("#")]


def test_openmvs_finds_photos_and_projects_points(flat: Path) -> None:
    cameras = {words[0]: words[1:] for words in lines(flat / "sparse" / "cameras.txt")}
    points = {words[0]: np.array(words[1:4], float) for words in lines(flat / "sparse" / "points3D.txt")}
    rows = lines(flat / "sparse" / "images.txt")
    checked = 0
    for head, observed in zip(rows[::2], rows[1::2], strict=True):
        assert len(head) == 10  # a name with spaces has more words
        (w, x, y, z), translation = map(float, head[1:5]), np.array(head[5:8], float)
        model, width, height, *numbers = cameras[head[8]]
        fx, fy, cx, cy = map(float, numbers)
        assert model == "PINHOLE"
        with Image.open(flat / "images" / head[9]) as image:
            assert image.size == (int(width), int(height))
        rotation = pycolmap.Rotation3d(np.array([x, y, z, w])).matrix()
        for u, v, point in np.array(observed).reshape(-1, 3):
            if point != "-1":
                local = rotation @ points[point] + translation
                projected = local[:2] / local[2] * [fx, fy] + [cx, cy]
                assert np.abs(projected - [float(u), float(v)]).max() < 1e-6
                checked += 1
    assert checked > 100


def test_3dgs_finds_photos_by_their_file_names(flat: Path) -> None:
    model = pycolmap.Reconstruction(flat / "sparse" / "0")
    assert {camera.model_name for camera in model.cameras.values()} == {"PINHOLE"}
    stems = [Path(image.name).name.split(".")[0] for image in model.images.values()]
    assert len(set(stems)) == 3
    for image in model.images.values():
        assert (flat / "images" / Path(image.name).name).is_file()


def test_gsplat_finds_the_photos_of_subfolders_in_order(tmp_path: Path) -> None:
    helpers.scene(tmp_path, NAMES)
    dense = tmp_path / "dense"
    undistort(find_source(tmp_path, images=tmp_path / "photos"), dense)
    model = pycolmap.Reconstruction(dense / "sparse" / "0")
    files = sorted(path.relative_to(dense / "images").as_posix() for path in (dense / "images").rglob("*.*"))
    assert files == sorted(image.name for image in model.images.values()) == sorted(NAMES)
