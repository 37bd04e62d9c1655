"""New photos in a model: their names, their files, and the model with them in it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lgbatch.errors import InputError
from lgbatch.pipelines import sfm
from lgbatch.pipelines.localization.localize import localize, recorded_extraction
from lgbatch.pipelines.localization.queries import find_queries
from lgbatch.pipelines.localization.references import References
from lgbatch.pipelines.localization.results import Localization, Localized
from lgbatch.pipelines.localization.write import add_to_model, write_poses
from lgbatch.reconstruction.known_poses.triangulate import triangulate
from lgbatch.storage.features import FeatureStore
from lgbatch.types import Features, Matches
from lgbatch.workspace.folder import Workspace
from tests.reconstruction.known_poses.helpers import known_scene, poses_of


def test_names_are_below_the_folder_of_the_photos_or_the_common_one(tmp_path: Path) -> None:
    for name in ("photos/a/1.jpg", "photos/2.jpg", "new/3.jpg", "new/deep/4.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(tmp_path / name)
    inside = find_queries([tmp_path / "photos"], tmp_path / "photos", ["2.jpg"])
    assert [ref.name for ref in inside.refs] == ["a/1.jpg"] and inside.registered == ["2.jpg"]
    other = find_queries([tmp_path / "new", tmp_path / "new/3.jpg"], tmp_path / "photos", ["3.jpg"])
    assert [ref.name for ref in other.refs] == ["3.jpg", "deep/4.jpg"] and not other.registered
    both = find_queries([tmp_path / "photos/2.jpg", tmp_path / "new/3.jpg"], tmp_path / "photos", ["2.jpg"])
    assert [ref.name for ref in both.refs] == ["3.jpg"] and both.registered == ["2.jpg"]
    mixed = find_queries([tmp_path / "photos", tmp_path / "new/3.jpg"], tmp_path / "photos", ["2.jpg"])
    assert [ref.name for ref in mixed.refs] == ["new/3.jpg", "photos/a/1.jpg"] and mixed.registered == ["2.jpg"]
    known = find_queries([tmp_path / "photos/2.jpg"], tmp_path / "photos", ["2.jpg"])
    assert not known.refs and known.registered == ["2.jpg"]
    with pytest.raises(InputError, match=r"there is no photo or folder .*5.jpg"):
        find_queries([tmp_path / "5.jpg"], None, [])


def test_features_of_another_run_are_refused(tmp_path: Path) -> None:
    _, truth = known_scene(tmp_path)
    for shift in (0.0, 100.0):
        path = tmp_path / f"features{shift}.h5"
        with FeatureStore(path, append={"extractor": "disk", "max_keypoints": 512, "resize": 640}) as store:
            for image in truth.images.values():
                xy = np.array([point.xy for point in image.points2D], np.float32)
                keypoints = xy - np.float32(0.5) + np.float32(shift)
                ones = np.ones(len(xy), np.float32)
                store.write(image.name, Features(keypoints, ones, np.ones((len(xy), 8), np.float32), (512, 384)))
            store.commit()
        with FeatureStore(path) as store:
            settings = recorded_extraction(Workspace(tmp_path), store)
            assert (settings.extractor, settings.max_keypoints, settings.resize) == ("disk", 512, 640)
            if shift:
                with pytest.raises(InputError, match=r"has other keypoints of 1.jpg than the model"):
                    References(truth, store, None)
            else:
                references = References(truth, store, tmp_path / "images")
                assert sum((reference.points >= 0).sum() for reference in references.images) > 600


def test_photos_are_added_to_a_copy_with_the_other_poses_as_they_were(tmp_path: Path) -> None:
    import pycolmap

    workspace, truth = known_scene(tmp_path)
    new = localized(workspace, truth, "6.jpg")
    truth.deregister_frame(truth.find_image_with_name("6.jpg").frame_id)
    (tmp_path / "five").mkdir()
    truth.write(tmp_path / "five")
    base = triangulate(workspace, tmp_path / "five", tmp_path / "images").folder
    model = pycolmap.Reconstruction(base)
    before = poses_of(model)
    result = Localization(folder=tmp_path / "localized", photos=[new, replace(new, name="7.jpg", pose=None)])
    write_poses(result, model)
    added = add_to_model(result, model, base, tmp_path / "images")
    after = pycolmap.Reconstruction(tmp_path / "localized/added")
    assert added.registered_images == 6 and poses_of(after) == before | {"6.jpg": np.round(new.pose, 12).tolist()}
    assert after.find_image_with_name("6.jpg").num_points3D >= 100 and added.mean_reprojection_error < 0.1
    assert poses_of(pycolmap.Reconstruction(base)) == before
    assert all(point.color.any() for point in after.points3D.values())  # the photos are grey
    queries = pycolmap.Reconstruction(tmp_path / "localized/queries")
    assert [image.name for image in queries.images.values()] == ["6.jpg"] and queries.num_points3D() == len(new.inliers)
    name, *numbers = (tmp_path / "localized/poses.txt").read_text().split()
    pose = pycolmap.Rigid3d(
        pycolmap.Rotation3d(np.array(numbers[:4], float)[[1, 2, 3, 0]]), np.array(numbers[4:], float)
    )
    assert name == "6.jpg" and np.allclose(pose.matrix(), new.pose)
    first, second = json.loads((tmp_path / "localized/poses.json").read_text())["photos"]
    assert np.allclose(first["camera_from_world"], new.pose) and second["camera_from_world"] is None
    assert result.exit_status == 1 and "localized   1 of 2 photos" in result.format()


def localized(workspace: Workspace, truth: "pycolmap.Reconstruction", name: str) -> Localized:  # noqa: F821
    """A photo of the true model, with all its matches."""
    import pycolmap

    image = truth.find_image_with_name(name)
    matches = {}
    with pycolmap.Database.open(workspace.database) as db:
        ids = {row.name: row.image_id for row in db.read_all_images()}
        for other, other_id in ids.items():
            if other != name:
                found = db.read_matches(ids[name], other_id).astype(np.int32)
                matches[other] = Matches(found, np.ones(len(found), np.float32))
    inliers = {i: image.point2D(i).point3D_id for i in image.get_observation_point2D_idxs()}
    return Localized(
        name=name,
        pose=image.cam_from_world().matrix(),
        camera=pycolmap.Camera(image.camera.todict()),
        is_known=True,
        correspondences=len(inliers),
        inliers={i: point for i, point in inliers.items() if point <= 60},
        keypoints=np.array([point.xy for point in image.points2D]),
        matches=matches,
    )


def test_wrong_input_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no COLMAP model"):
        localize(Workspace(tmp_path), [tmp_path])
    known_scene(tmp_path)
    with pytest.raises(InputError, match=r"there is no .*features.h5"):
        localize(Workspace(tmp_path), [tmp_path], model=tmp_path / "truth")


@pytest.mark.weights
def test_a_photo_of_the_demo_is_localized_where_a_model_of_all_has_it(
    models: Path, gallery: Path, tmp_path: Path
) -> None:
    import pycolmap

    photos = sorted(gallery.glob("*.jpg"))[:6]
    (tmp_path / "photos").mkdir()
    for photo in photos[:2] + photos[3:]:
        (tmp_path / "photos" / photo.name).symlink_to(photo)
    workspace = Workspace(tmp_path / "out")
    sfm.run(tmp_path / "photos", workspace.root, models=models, refine=False, second_try=0.0, resize=640)
    files = {path: path.stat().st_mtime_ns for path in workspace.root.rglob("*.bin")}
    (tmp_path / "new").mkdir()
    shutil.copy(photos[2], tmp_path / "new")
    shutil.copy(photos[3], tmp_path / "new/again.jpg")
    done = localize(workspace, [tmp_path / "new"], models=models, add=True)
    assert [photo.name for photo in done.photos] == ["again.jpg", photos[2].name]
    assert done.exit_status == 0 and all(photo.is_known for photo in done.photos)
    model = pycolmap.Reconstruction(workspace.sparse / "0")
    again = model.find_image_with_name(photos[3].name)
    assert np.allclose(done.photos[0].pose, again.cam_from_world().matrix(), atol=0.02)
    assert all(path.stat().st_mtime_ns == time for path, time in files.items())
