"""Import into a database that COLMAP made: its ids, cameras, rigs and frames stay."""

import itertools
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from lgbatch.colmap.ownership import is_marked
from lgbatch.errors import DatabaseError
from lgbatch.types import Pair
from tests.helpers.synthetic import Source, content, import_source, photo

SIZE = (512, 384)


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Source]:
    """A database of two cameras in a rig, with SIFT and matches, and features of other kinds for its images."""
    options = pycolmap.SyntheticDatasetOptions(
        num_rigs=1,
        num_cameras_per_rig=2,
        num_frames_per_rig=2,
        num_points3D=50,
        camera_width=SIZE[0],
        camera_height=SIZE[1],
        camera_model_id=pycolmap.CameraModelId.OPENCV,
        camera_params=[600, 605, 250, 190, 0.01, 0, 0, 0],
    )
    source = Source()
    with pycolmap.Database.open(tmp_path / "database.db") as db:
        pycolmap.synthesize_dataset(options, db)
        names = [image.name for image in db.read_all_images()]
    for number, name in enumerate(names):
        photo(tmp_path / "images", name, SIZE)
        source.points[name] = (np.random.default_rng(number).random((20, 2)) * SIZE).astype(np.float32)
        source.sizes[name] = SIZE
    for a, b in itertools.combinations(names, 2):
        source.matches[Pair(a, b)] = np.stack([np.arange(10), np.arange(5, 15)], axis=1).astype(np.int32)
    return tmp_path / "database.db", source


def clean(path: Path) -> None:
    """What `colmap database_cleaner --type features` does."""
    with pycolmap.Database.open(path) as db:
        for clear in db.clear_keypoints, db.clear_descriptors, db.clear_matches, db.clear_two_view_geometries:
            clear()


def test_keypoints_of_colmap_are_refused_in_one_line_and_kept(made: tuple[Path, Source]) -> None:
    path, source = made
    before = path.read_bytes()
    with pytest.raises(
        DatabaseError, match=r"COLMAP's SIFT: remove them by `colmap database_cleaner --type features`, "
    ) as error:
        import_source(path, source)
    assert "\n" not in str(error.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize("mode", ["auto", "image", "folder", "single"])
def test_images_cameras_and_rigs_of_colmap_are_kept(made: tuple[Path, Source], mode: str) -> None:
    path, source = made
    clean(path)
    before = content(path)
    counts = import_source(path, source, mode=mode)
    assert (counts.images, counts.cameras, counts.keypoints, counts.pairs) == (0, 0, 80, 6)
    after = content(path)
    for table in "cameras", "images", "frames", "rigs":
        assert after[table] == before[table]
    assert not is_marked(path)
    assert import_source(path, source, mode=mode).keypoints == 0


def test_new_images_are_added_to_those_of_colmap(made: tuple[Path, Source]) -> None:
    path, source = made
    clean(path)
    before = content(path)
    photo(path.parent / "images", "new.jpg", SIZE)
    source.points["new.jpg"], source.sizes["new.jpg"] = source.points[next(iter(source.points))], SIZE
    counts = import_source(path, source, mode="image")
    assert (counts.images, counts.cameras) == (1, 1)
    after = content(path)
    assert before["images"].items() <= after["images"].items()
    assert before["cameras"].items() <= after["cameras"].items()
