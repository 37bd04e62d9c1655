"""Rigs of COLMAP's rig_config.json: the file and its check, the database, and the model."""

import json
from pathlib import Path
from typing import Any

import pycolmap
import pytest

from lgbatch.colmap.sensors.rigs import check_rigs, read_rigs
from lgbatch.config import Settings
from lgbatch.errors import DatabaseError, InputError
from tests.helpers.synthetic import SYNTHETIC_SIZE, Source, content, import_source, part, scene, take
from tests.reconstruction.helpers import run as reconstruct

FRAMES = 6
POSE = {"cam_from_rig_rotation": [1, 0, 0, 0], "cam_from_rig_translation": [0.1, 0, 0]}
LEFT, RIGHT = {"image_prefix": "left/", "ref_sensor": True}, {"image_prefix": "right/", **POSE}
NAMES = ("left/1.jpg", "left/2.jpg", "right/1.jpg", "right/2.jpg", "right/3.jpg", "x.jpg")


def write(folder: Path, *cameras: dict[str, Any]) -> Settings:
    """Write a rig_config.json with one rig."""
    path = folder / "rig_config.json"
    path.write_text(json.dumps([{"cameras": cameras}]))
    return Settings(rig_config=str(path))


def frames(database: Path) -> set[frozenset[str]]:
    """The names of the images of each frame."""
    with pycolmap.Database.open(database) as db:
        names = {image.image_id: image.name for image in db.read_all_images()}
        return {frozenset(names[i.id] for i in frame.data_ids) for frame in db.read_all_frames()}


def stereo(folder: Path) -> tuple[Source, Settings]:
    """Photos of a rig of two cameras, which the file describes."""
    pycolmap.set_random_seed(0)
    options = pycolmap.SyntheticDatasetOptions(
        num_rigs=1,
        num_cameras_per_rig=2,
        num_frames_per_rig=FRAMES,
        num_points3D=200,
        camera_width=SYNTHETIC_SIZE[0],
        camera_height=SYNTHETIC_SIZE[1],
        camera_params=[640, SYNTHETIC_SIZE[0] / 2, SYNTHETIC_SIZE[1] / 2, 0.02],
    )
    source = Source()
    with pycolmap.Database.open(folder / "synthetic.db") as db:
        truth = pycolmap.synthesize_dataset(options, db)
        pycolmap.synthesize_noise(pycolmap.SyntheticNoiseOptions(point2D_stddev=0.5), truth, db)
        (rig,) = db.read_all_rigs()
        reference = rig.ref_sensor_id.id
        names = {
            image.image_id: f"{'left' if image.camera_id == reference else 'right'}/{image.frame_id:03}.jpg"
            for image in db.read_all_images()
        }
        take(db, names, source, folder)
    (pose,) = rig.non_ref_sensors.values()
    x, y, z, w = pose.rotation.quat
    right = RIGHT | {"cam_from_rig_rotation": [w, x, y, z], "cam_from_rig_translation": list(pose.translation)}
    return source, write(folder, LEFT, right)


@pytest.mark.parametrize("mapper", ["incremental", "global"])
def test_the_model_has_the_rig(tmp_path: Path, database: Path, mapper: str) -> None:
    source, settings = stereo(tmp_path)
    counts = import_source(database, source, "image", rigs=read_rigs(settings))
    assert counts.rigs == {"rigs": 1, "cameras": 2, "frames": FRAMES, "other images": 0}
    assert counts.cameras == 2
    (model,) = reconstruct(tmp_path, mapper=mapper).models
    assert model.registered_images == 2 * FRAMES and model.mean_reprojection_error < 1
    built = pycolmap.Reconstruction(tmp_path / "sparse/0")
    assert built.num_reg_frames() == FRAMES and len(built.rigs) == 1


def test_the_global_mapper_estimates_the_poses_of_a_rig(tmp_path: Path, database: Path) -> None:
    source, _ = stereo(tmp_path)
    settings = write(tmp_path, LEFT, {"image_prefix": "right/"})
    with pytest.raises(InputError, match=r"camera right/ has no pose: .*--mapper global"):
        check_rigs(settings, source.names(), mapper="incremental")
    check_rigs(settings, source.names(), mapper="global")
    import_source(database, source, "image", rigs=read_rigs(settings))
    assert reconstruct(tmp_path, mapper="global").models[0].registered_images == 2 * FRAMES


def test_images_of_no_rig_have_frames_of_their_own(tmp_path: Path, database: Path) -> None:
    source = scene(tmp_path / "images", NAMES)
    settings = write(tmp_path, LEFT, RIGHT)
    check_rigs(settings, NAMES)
    counts = import_source(database, source, "single", rigs=read_rigs(settings))
    assert counts.rigs == {"rigs": 1, "cameras": 2, "frames": 2, "other images": 1}
    assert frames(database) == {
        frozenset({"left/1.jpg", "right/1.jpg"}),
        frozenset({"left/2.jpg", "right/2.jpg"}),
        frozenset({"right/3.jpg"}),
        frozenset({"x.jpg"}),
    }
    before = database.read_bytes()
    again = import_source(database, source, "single", rigs=read_rigs(settings), view=True)
    assert again.images == 0 and not again.rebuilt and again.rigs == counts.rigs
    assert database.read_bytes() == before


def test_later_images_join_their_frames(tmp_path: Path, database: Path) -> None:
    source, rigs = scene(tmp_path / "images", NAMES), read_rigs(write(tmp_path, LEFT, RIGHT))
    for names in [["left/1.jpg", "x.jpg"], ["left/1.jpg", "right/1.jpg", "right/2.jpg", "x.jpg"], list(NAMES)]:
        import_source(database, part(source, names), rigs=rigs)
    assert len(frames(database)) == 4 and frozenset({"left/2.jpg", "right/2.jpg"}) in frames(database)


def test_without_the_reference_camera_there_is_no_rig(tmp_path: Path, database: Path) -> None:
    source, rigs = scene(tmp_path / "images", NAMES), read_rigs(write(tmp_path, LEFT, RIGHT))
    import_source(database, part(source, ["right/1.jpg", "right/2.jpg"]), rigs=rigs)
    assert frames(database) == {frozenset({"right/1.jpg"}), frozenset({"right/2.jpg"})}


def test_a_view_follows_the_file_and_another_database_is_kept(tmp_path: Path, database: Path) -> None:
    source = scene(tmp_path / "images", NAMES)
    import_source(database, source, "folder")
    default = content(database)
    rigs = read_rigs(write(tmp_path, LEFT, RIGHT))
    with pytest.raises(DatabaseError, match=r"other rigs or frames than .*rig_config\.json: delete the database"):
        import_source(database, source, "folder", rigs=rigs)
    assert content(database) == default
    assert import_source(database, source, "folder", rigs=rigs, view=True).rebuilt
    moved = read_rigs(write(tmp_path, LEFT, RIGHT | {"cam_from_rig_translation": [0.2, 0, 0]}))
    assert import_source(database, source, "folder", rigs=moved, view=True).rebuilt
    with pycolmap.Database.open(database) as db:
        poses = [pose for rig in db.read_all_rigs() for pose in rig.non_ref_sensors.values()]
    assert [list(pose.translation) for pose in poses] == [[0.2, 0, 0]]


def test_cameras_of_the_file_come_before_other_intrinsics(tmp_path: Path, database: Path) -> None:
    source = scene(tmp_path / "images", NAMES)
    known = {"camera_model_name": "PINHOLE", "camera_params": [50, 51, 32, 24]}
    rigs = read_rigs(write(tmp_path, LEFT, RIGHT | known))
    import_source(database, source, "folder", rigs=rigs)
    with pycolmap.Database.open(database) as db:
        cameras = {image.name: db.read_camera(image.camera_id) for image in db.read_all_images()}
    assert cameras["right/2.jpg"].model_name == "PINHOLE" and list(cameras["right/1.jpg"].params) == [50, 51, 32, 24]
    assert cameras["left/1.jpg"].model_name == "SIMPLE_RADIAL"
    assert not import_source(database, source, "folder", rigs=rigs, view=True).rebuilt


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, r"cannot read .*: No such file or directory; give the path of a rig_config\.json"),
        ("{", r"is not JSON: .*give a rig_config\.json"),
        ("[]", "expected a list of rigs"),
        ('{"cameras": []}', "expected a list of rigs"),
        ('[{"cameras": [3]}]', "expected a list of rigs"),
        ("\xff", "is not JSON"),
        ([{}], 'rig 1, camera 1: give an "image_prefix"'),
        ([{"image_prefix": "left/"}], '0 cameras have "ref_sensor": true'),
        ([LEFT, LEFT | {"image_prefix": "right/"}], '2 cameras have "ref_sensor": true'),
        ([LEFT, RIGHT, RIGHT], "two cameras have the image_prefix right/"),
        ([LEFT | POSE], "the reference camera has no cam_from_rig_rotation"),
        ([LEFT, {"image_prefix": "r", "cam_from_rig_rotation": [1, 0, 0, 0]}], "camera 2: give both or none"),
        ([LEFT, RIGHT | {"cam_from_rig_rotation": [1, 0, 0]}], "cam_from_rig_rotation must be 4 numbers"),
        ([LEFT, RIGHT | {"cam_from_rig_translation": [1] * 9}], "cam_from_rig_translation must be 3 numbers"),
        ([LEFT, RIGHT | {"cam_from_rig_rotation": [1, 1, 0, 0]}], "quaternion w, x, y, z of length 1"),
        ([LEFT | {"camera_model_name": "PINHOLE"}], "both or none of camera_model_name and camera_params"),
        ([LEFT | {"camera_model_name": "PINHOLE", "camera_params": [1]}], "PINHOLE has 4 parameters"),
        ('[{"cameras": [{"image_prefix": "left/", "ref_sensor": true, "x": NaN}]}]', "COLMAP cannot read .*rig_config"),
        ([LEFT, RIGHT, {"image_prefix": "up/", **POSE}], r"no photo starts with up/: give the path below the folder"),
        ([LEFT, {"image_prefix": "x", **POSE}], r"no photo of left/ has the name of one of x: .*the same name"),
        (
            [LEFT, RIGHT, {"image_prefix": "r", **POSE}],
            r"image right/1\.jpg starts with right/ and r: end",
        ),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path: Path, text: Any, reason: str) -> None:
    path = tmp_path / "rig_config.json"
    if text is not None:
        path.write_text(text if isinstance(text, str) else json.dumps([{"cameras": text}]), encoding="latin-1")
    with pytest.raises(InputError, match=reason) as error:
        check_rigs(Settings(rig_config=str(path)), NAMES)
    assert "\n" not in str(error.value)
