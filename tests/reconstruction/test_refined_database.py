"""Copies of the database with refined keypoints, and what COLMAP makes of them."""

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from lgbatch.cli import main as cli
from lgbatch.colmap.ownership import is_marked, mark
from lgbatch.config import Settings
from lgbatch.errors import DatabaseError, InputError, ReconstructionError
from lgbatch.reconstruction.refined_database import write_refined_database
from lgbatch.reconstruction.refinement.refine import refine
from lgbatch.storage.features import FeatureStore
from lgbatch.workspace.folder import Workspace
from tests.reconstruction.refinement.helpers import Scene, make_scene, write_workspace


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return make_scene(tmp_path_factory.mktemp("refine") / "photos")


@pytest.fixture(scope="module")
def refined(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with a refined model, and the database that it was mapped from. Tests do not change it."""
    files = Workspace(write_workspace(scene, tmp_path_factory.mktemp("refined")))
    write_database(scene.model, files.database)
    assert refine(files, scene.photos, Settings()).refined[0].change == "aligned"
    return files


def write_database(model: pycolmap.Reconstruction, path: Path) -> None:
    """Write the keypoints of a model and the matches of its tracks, verified. Keypoints have a scale, in column 3."""
    with pycolmap.Database.open(path) as db:
        db.write_camera(model.cameras[1], use_camera_id=True)
        for image_id, image in sorted(model.images.items()):
            db.write_image(pycolmap.Image(name=image.name, camera_id=1, image_id=image_id), use_image_id=True)
            xy = np.array([feature.xy for feature in image.points2D], np.float32)
            db.write_keypoints(image_id, np.column_stack([xy, np.full((len(xy), 2), 7, np.float32)]))
        for first in model.images.values():
            for second in model.images.values():
                if first.image_id < second.image_id:
                    db.write_matches(first.image_id, second.image_id, common_points(first, second))
    pycolmap.geometric_verification(path)
    mark(path)


def common_points(first: pycolmap.Image, second: pycolmap.Image) -> NDArray[np.uint32]:
    """The rows (M, 2) of keypoints of two images that see the same point."""
    rows = {feature.point3D_id: row for row, feature in enumerate(second.points2D) if feature.has_point3D()}
    seen = ((row, feature.point3D_id) for row, feature in enumerate(first.points2D) if feature.has_point3D())
    return np.array([(row, rows[point]) for row, point in seen if point in rows], np.uint32)


def error_of_mapping(database: Path, photos: Path, folder: Path) -> float:
    """The mean reprojection error of the model that COLMAP maps from a database."""
    folder.mkdir()
    options = pycolmap.IncrementalPipelineOptions(random_seed=0, num_threads=1)
    (model,) = pycolmap.incremental_mapping(database, photos, folder, options).values()
    assert model.num_reg_images() == 6
    return model.compute_mean_reprojection_error()


def tables(database: Path, *names: str) -> list[list[tuple[object, ...]]]:
    with closing(sqlite3.connect(database)) as connection:
        return [connection.execute(f"SELECT * FROM {name} ORDER BY 1").fetchall() for name in names]


def test_colmap_maps_the_copy_with_a_lower_error(scene: Scene, refined: Workspace, tmp_path: Path) -> None:
    before, copy = refined.database.read_bytes(), tmp_path / "new" / "refined.db"
    moved = write_refined_database(refined, copy)
    assert refined.database.read_bytes() == before
    assert moved > 0.5 * scene.model.compute_num_observations()
    errors = [error_of_mapping(path, scene.photos, tmp_path / path.stem) for path in (refined.database, copy)]
    assert errors[1] < errors[0] / 3


def test_only_observed_keypoints_and_cameras_change(scene: Scene, refined: Workspace, tmp_path: Path) -> None:
    copy = tmp_path / "refined.db"
    moved = write_refined_database(refined, copy)
    assert is_marked(refined.database) and not is_marked(copy)
    others = ("images", "matches", "two_view_geometries")
    assert tables(copy, *others) == tables(refined.database, *others)
    model, differences = pycolmap.Reconstruction(refined.sparse / "0"), 0
    with pycolmap.Database.open(copy) as db:
        (camera,) = db.read_all_cameras()
    assert camera.has_prior_focal_length and camera.model == model.cameras[1].model
    np.testing.assert_array_equal(camera.params, model.cameras[1].params)
    assert camera.params.tolist() != scene.model.cameras[1].params.tolist()
    old_rows, new_rows = (tables(path, "keypoints")[0] for path in (refined.database, copy))
    for (image_id, rows, columns, old), (_, _, _, new) in zip(old_rows, new_rows, strict=True):
        before, after = (np.frombuffer(data, np.float32).reshape(rows, columns) for data in (old, new))
        np.testing.assert_array_equal(before[:, 2:], after[:, 2:])
        observed = np.array([feature.has_point3D() for feature in model.images[image_id].points2D])
        np.testing.assert_array_equal(before[~observed], after[~observed])
        xy = np.array([feature.xy for feature in model.images[image_id].points2D])
        np.testing.assert_allclose(after[observed, :2], xy[observed], atol=2e-3)
        differences += int((before != after).any(axis=1).sum())
    assert differences == moved


def test_a_file_is_never_replaced_nor_written_without_reason(scene: Scene, refined: Workspace, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="already exists: choose another name"):
        write_refined_database(refined, refined.database)
    target = tmp_path / "refined.db"
    mapped = Workspace(write_workspace(scene, tmp_path / "mapped"))
    with pytest.raises(DatabaseError, match="there is no"):
        write_refined_database(mapped, target)
    write_database(scene.model, mapped.database)
    with pytest.raises(ReconstructionError, match="was not written: no observation of the models"):
        write_refined_database(mapped, target)
    with closing(sqlite3.connect(mapped.database)) as connection, connection:
        connection.execute("UPDATE keypoints SET rows = 1, data = substr(data, 1, 16) WHERE image_id = 2")
    with pytest.raises(DatabaseError, match=r"the database has 1 keypoints of 01\.png, the model"):
        write_refined_database(mapped, target)
    with pytest.raises(ReconstructionError, match="has no models"):
        write_refined_database(Workspace(tmp_path / "nothing"), target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mapped"]


def test_the_command_writes_the_copy_and_repeats_nothing(scene: Scene, tmp_path: Path) -> None:
    files, copy = Workspace(write_workspace(scene, tmp_path)), tmp_path / "refined.db"
    write_database(scene.model, files.database)
    with FeatureStore(files.features, append={"extractor": "sift"}) as features:
        features.set_image_folder(scene.photos)

    def run(*options: str) -> Result:
        return CliRunner().invoke(cli.app, ["refine", "-w", str(tmp_path), *options])

    assert run().exit_code == 0
    done = run("--write-database", str(copy))
    assert done.exit_code == 0 and "finished already" in done.stdout
    assert f"{copy}: copy of the database with " in done.stderr and copy.is_file()
    assert "finished already" in run().stdout
    again, without = run("--write-database", str(copy)), run("--no-refine", "--write-database", str(tmp_path / "b.db"))
    assert again.exit_code == without.exit_code == 2
    assert "already exists" in again.stderr and "leave out --no-refine" in without.stderr
    assert (files.sparse / "0" / "unrefined").is_dir()
