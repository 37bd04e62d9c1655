"""The import of turned photos: gravity as COLMAP has it, and mirrored photos."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from lgbatch.colmap.import_stores import import_stores
from lgbatch.config import Settings
from lgbatch.photos.coordinates import is_mirrored
from lgbatch.pipelines.summary import Summary
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import MatchStore
from lgbatch.types import ORIENTATIONS, Features
from lgbatch.workspace.folder import Workspace
from tests.helpers.oriented import save
from tests.helpers.synthetic import exif_photo
from tests.workspace.helpers import random_features

NAMES = {orientation: f"{orientation}.png" for orientation in ORIENTATIONS}
SIZE = (8, 6)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A workspace with features of photos in all orientations, and no matches. The photos are in tmp_path/images."""
    files = Workspace(tmp_path / "out")
    files.root.mkdir()
    with FeatureStore(files.features, append={}) as store:
        for orientation, name in NAMES.items():
            upright = SIZE[::-1] if orientation >= 5 else SIZE
            save(tmp_path / "images" / name, np.zeros((upright[1], upright[0], 3), np.uint8), orientation)
            store.write(name, features(orientation))
    with MatchStore(files.matches, append={}):
        pass
    files.pairs.write_text("1.png 3.png\n")
    return files


def features(orientation: int) -> Features:
    return replace(random_features(orientation), image_size=SIZE, orientation=orientation)


def gravities(database: Path) -> dict[str, list[float]]:
    """The direction of gravity by image name, of the images that have a pose prior."""
    with pycolmap.Database.open(database) as db:
        names = {image.image_id: image.name for image in db.read_all_images()}
        return {names[prior.corr_data_id.id]: prior.gravity.tolist() for prior in db.read_all_pose_priors()}


def test_gravity_is_that_of_colmap(workspace: Workspace, tmp_path: Path) -> None:
    exif_photo(tmp_path / "images", "no tag.jpg", SIZE)
    import_stores(workspace, tmp_path / "images", [*NAMES.values()], workspace.pairs, Settings())
    with pycolmap.Database.open(tmp_path / "colmap.db"):
        pass
    pycolmap.import_images(tmp_path / "colmap.db", tmp_path / "images", image_names=[*NAMES.values(), "no tag.jpg"])
    found = gravities(workspace.database)
    assert found == {"1.png": [0, 1, 0], "3.png": [0, -1, 0], "6.png": [1, 0, 0], "8.png": [-1, 0, 0]}
    assert found == gravities(tmp_path / "colmap.db")


def test_gravity_is_unknown_if_photos_are_not_turned(workspace: Workspace, tmp_path: Path) -> None:
    import_stores(workspace, tmp_path / "images", [*NAMES.values()], workspace.pairs, Settings(rotation="none"))
    assert gravities(workspace.database) == {}


def test_a_position_and_gravity_are_one_prior(workspace: Workspace, tmp_path: Path) -> None:
    exif_photo(tmp_path / "images", "gps.jpg", SIZE, gps=(47, 8, 400))
    with FeatureStore(workspace.features, append={}) as store:
        store.write("gps.jpg", features(1))
    import_stores(workspace, tmp_path / "images", ["gps.jpg"], workspace.pairs, Settings())
    with pycolmap.Database.open(workspace.database) as db:
        (prior,) = db.read_all_pose_priors()
    assert prior.position.tolist() == [47, 8, 400] and not prior.has_gravity()
    assert prior.coordinate_system == pycolmap.PosePriorCoordinateSystem.WGS84


def test_keypoints_of_mirrored_photos_are_mirrored_and_told(workspace: Workspace, tmp_path: Path) -> None:
    for _ in range(2):  # the second run skips the stage
        done = import_stores(workspace, tmp_path / "images", [*NAMES.values()], workspace.pairs, Settings())
        summary = Summary(Settings())
        summary.add_imported(done)
        assert done.mirrored_images == summary.as_dict()["mirrored_images"] == 4
        assert "4 photos, stored as mirror images: save upright" in summary.format()
    with pycolmap.Database.open(workspace.database) as db:
        for image in db.read_all_images():
            orientation = int(image.name[0])
            expected = features(orientation).keypoints + np.float32(0.5)
            if is_mirrored(orientation):
                expected[:, 0] = SIZE[0] - expected[:, 0]
            np.testing.assert_allclose(db.read_keypoints(image.image_id), expected, atol=1e-5)
