"""Which images share a camera, by mode, and a comparison with COLMAP's own import of the same photos."""

from pathlib import Path

import numpy as np
import pytest

from lgbatch.colmap.database import DatabaseCounts
from lgbatch.colmap.log import colmap_log_off
from lgbatch.errors import DatabaseError
from tests.helpers.synthetic import NAMES, SIZE, Source, content, exif_photo, part, photo, scene
from tests.helpers.synthetic import import_source as run


def camera_groups(path: Path) -> list[list[str]]:
    """The image names of each camera."""
    cameras: dict[int, list[str]] = {}
    for name, (_, camera, _) in sorted(content(path)["images"].items()):
        cameras.setdefault(camera, []).append(name)
    assert len(content(path)["cameras"]) == len(content(path)["rigs"]) == len(cameras)
    return sorted(cameras.values())


NESTED = ("x/1.jpg", "x/sub/1.jpg", "x/z.jpg", "y.jpg")


@pytest.mark.parametrize(
    ("mode", "groups"),
    [
        ("image", [["x/1.jpg"], ["x/sub/1.jpg"], ["x/z.jpg"], ["y.jpg"]]),
        ("folder", [["x/1.jpg", "x/z.jpg"], ["x/sub/1.jpg"], ["y.jpg"]]),
        ("single", [list(NESTED)]),
        ("auto", [["x/1.jpg", "x/z.jpg"], ["x/sub/1.jpg"], ["y.jpg"]]),
    ],
)
def test_one_import_and_an_append_share_the_same_cameras(
    tmp_path: Path, database: Path, mode: str, groups: list[list[str]]
) -> None:
    everything = scene(tmp_path / "images", NESTED)
    appended = tmp_path / "appended.db"
    run(database, everything, mode)
    run(appended, part(everything, list(NESTED[:2])), mode)
    run(appended, everything, mode)
    assert camera_groups(database) == camera_groups(appended) == sorted(groups)


def test_photos_of_different_sizes_cannot_share_a_camera(tmp_path: Path, database: Path) -> None:
    source = scene(tmp_path / "images", ("a.jpg", "b.jpg", "x/c.jpg"))
    photo(tmp_path / "images", "x/c.jpg", (60, 40))
    source.sizes["x/c.jpg"] = (60, 40)
    with pytest.raises(DatabaseError, match=r"x/c\.jpg \(60x40\) cannot share .*--camera-mode auto"):
        run(database, source, "single")
    run(database, source, "folder")
    assert len(content(database)["cameras"]) == 2


@pytest.mark.parametrize(
    ("first", "second"),
    [("image", "single"), ("single", "image"), ("folder", "image"), ("image", "auto"), ("auto", "image")],
)
def test_another_camera_mode_is_rejected(database: Path, source: Source, first: str, second: str) -> None:
    run(database, source, first)
    with pytest.raises(DatabaseError, match=f"--camera-mode {second} requires.*delete the database"):
        run(database, source, second)


@pytest.mark.parametrize(
    ("camera", "tag", "turned", "apart"),
    [
        ("M3", 3, 5, True),
        ("M3", 3, 4, False),
        ("M3", None, 5, False),
        ("M3", 1, 5, False),
        (None, 3, 5, True),
        (None, None, 5, True),
    ],
)
def test_photos_that_are_turned_alike_have_a_camera_of_their_own(
    tmp_path: Path, database: Path, camera: str | None, tag: int | None, turned: int, apart: bool
) -> None:
    """Not if they are few, nor if EXIF names the camera and does not tell the turn: then the camera was turned."""
    names = [f"{number}.jpg" for number in range(8)]
    source = scene(tmp_path / "images", tuple(names))
    source.orientations = dict.fromkeys(names[:turned], 3)
    for name in names:
        orientation = tag if name in source.orientations else None
        exif_photo(tmp_path / "images", name, SIZE, camera, 24 if camera else None, orientation=orientation)
    run(database, source, "auto")
    assert camera_groups(database) == ([names[:turned], names[turned:]] if apart else [names])


def test_another_camera_model_is_rejected(database: Path, source: Source) -> None:
    run(database, source)
    with pytest.raises(DatabaseError, match="--camera-model SIMPLE_RADIAL"):
        run(database, source, model="OPENCV")


PHOTOS: dict[str, dict[str, object]] = {
    "drone/1.jpg": {"camera": "M3", "focal": 24},
    "drone/2.jpg": {"camera": "M3", "focal": 24},
    "drone/day 2/1.jpg": {"camera": "M3", "focal": 24},
    "drone/day 2/zoomed.jpg": {"camera": "M3", "focal": 48},
    "drone/day 2/other.jpg": {"camera": "M4", "focal": 24},
    "drone/stripped.jpg": {},
    "drone/turned.jpg": {"camera": "M3", "focal": 24, "size": (48, 64)},
    "scan/1.jpg": {},
    "scan/2.webp": {},
    "scan/3.jpg": {},
    "web/1.jpg": {},
    "web/2.jpg": {},
    "web/3.jpg": {"size": (40, 64)},
    "web/4.jpg": {"camera": "M5", "focal": 30},
    "phone/1.jpg": {},
    "phone/2.jpg": {},
    "phone/portrait 1.jpg": {"size": SIZE[::-1]},
    "phone/portrait 2.jpg": {"size": SIZE[::-1]},
    "half/1.jpg": {"focal": 30},
    "half/2.jpg": {"focal": 31},
}
EXPECTED_GROUPS = [
    ["drone/1.jpg", "drone/2.jpg", "drone/day 2/1.jpg"],
    ["drone/day 2/other.jpg"],
    ["drone/day 2/zoomed.jpg"],
    ["drone/stripped.jpg"],
    ["drone/turned.jpg"],
    ["half/1.jpg"],
    ["half/2.jpg"],
    ["phone/1.jpg", "phone/2.jpg"],
    ["phone/portrait 1.jpg", "phone/portrait 2.jpg"],
    ["scan/1.jpg", "scan/2.webp", "scan/3.jpg"],
    ["web/1.jpg"],
    ["web/2.jpg"],
    ["web/3.jpg"],
    ["web/4.jpg"],
]


def photos(folder: Path) -> Source:
    source = Source()
    for name, exif in PHOTOS.items():
        size = exif.get("size", SIZE)
        source.points[name], source.sizes[name] = np.zeros((1, 2), np.float32), size
        write = photo if name.endswith(".webp") else exif_photo
        write(folder, name, **{"size": size} | exif)
    return source


def test_auto_shares_cameras_by_exif_and_folder(tmp_path: Path, database: Path) -> None:
    source = photos(tmp_path / "images")
    assert run(database, source, "auto").cameras == len(EXPECTED_GROUPS)
    assert camera_groups(database) == EXPECTED_GROUPS
    before = database.read_bytes()
    assert run(database, source, "auto") == DatabaseCounts()
    assert database.read_bytes() == before


@pytest.mark.parametrize("step", [1, 2, 3])
def test_auto_reuses_the_cameras_of_earlier_imports(tmp_path: Path, database: Path, step: int) -> None:
    source = photos(tmp_path / "images")
    names = [n for n in PHOTOS if n != "web/3.jpg"]
    for start in range(step):
        added = part(source, ["web/3.jpg", *names[start::step], *names[: start * 2]])
        run(database, added, "auto")
    assert run(database, source, "auto") == DatabaseCounts()
    assert camera_groups(database) == EXPECTED_GROUPS


def test_auto_shares_a_camera_whose_photos_are_deleted(database: Path, source: Source) -> None:
    run(database, part(source, ["a.jpg", "b.jpg"]), "auto")
    for name in ("a.jpg", "b.jpg"):
        (database.parent / "images" / name).unlink()
    assert run(database, part(source, ["c.jpg"]), "auto") == DatabaseCounts(images=1, keypoints=20)
    assert camera_groups(database) == [list(NAMES)]


def test_auto_rejects_a_photo_that_changes_the_groups(database: Path, source: Source) -> None:
    run(database, source, "auto")
    photo(database.parent / "images", "d.jpg", (40, 64))
    source.points["d.jpg"], source.sizes["d.jpg"] = source.points["b.jpg"], (40, 64)
    with pytest.raises(DatabaseError, match="the photos have changed since: delete the database"):
        run(database, source, "auto")
    assert camera_groups(database) == [list(NAMES)]


def test_cameras_and_positions_equal_those_of_pycolmap_import_images(tmp_path: Path, database: Path) -> None:
    import pycolmap

    folder = tmp_path / "images"
    source = Source()
    exif: dict[str, dict[str, object]] = {
        "a.jpg": {"camera": "M3", "focal": 24, "gps": (47, 8, 432.5)},
        "b.jpg": {"camera": "M3", "focal": 24, "gps": (47, 9, 433.5)},
        "c.jpg": {"focal": 50},
        "d.png": {"camera": "M3", "focal": 24},
        "e.jpg": {"camera": "M3"},
        "x/f.jpg": {},
    }
    for name, metadata in exif.items():
        exif_photo(folder, name, SIZE, **metadata)
        source.points[name], source.sizes[name] = np.zeros((0, 2), np.float32), SIZE
    run(database, source, "auto", "RADIAL")
    reference = tmp_path / "reference.db"
    pycolmap.Database.open(reference).close()
    options = pycolmap.ImageReaderOptions(camera_model="RADIAL")
    with colmap_log_off():
        pycolmap.import_images(reference, folder, pycolmap.CameraMode.AUTO, list(exif), options)
    results = []
    for path in (database, reference):
        with pycolmap.Database.open(path) as db:
            priors = [(p.corr_data_id.id, *p.position, p.coordinate_system.name) for p in db.read_all_pose_priors()]
            has_prior = [camera.has_prior_focal_length for camera in db.read_all_cameras()]
            frames = [sorted(str(d) for d in frame.data_ids) for frame in db.read_all_frames()]
        rows = content(path)
        results.append((priors, has_prior, frames, [rows[table] for table in ("cameras", "images", "frames", "rigs")]))
    assert results[0] == results[1]
    assert priors == [(1, 47, 8, 432.5, "WGS84"), (2, 47, 9, 433.5, "WGS84")]
    assert has_prior == [True, True, False, False]


@pytest.mark.parametrize("name", ["b.webp", "b.jp2"])
def test_photos_without_exif_that_colmap_cannot_read_get_its_default_focal_length(
    tmp_path: Path, database: Path, name: str
) -> None:
    import pycolmap

    run(database, scene(tmp_path / "images", ("a.jpg", name)))
    with pycolmap.Database.open(database) as db:
        cameras = [db.read_camera(db.read_image_with_name(n).camera_id) for n in ("a.jpg", name)]
    assert all((c.width, c.height, c.has_prior_focal_length) == (*SIZE, False) for c in cameras)
    assert cameras[0].params.tolist() == cameras[1].params.tolist() == pytest.approx([1.2 * 64, 32, 24, 0])
    assert len(content(database)["frames"]) == 2


def test_a_database_without_frames_is_rejected(database: Path, source: Source) -> None:
    import pycolmap

    with pycolmap.Database.open(database) as db:
        camera = pycolmap.Camera.create_from_model_name(1, "SIMPLE_RADIAL", 76.8, *SIZE)
        db.write_image(pycolmap.Image(name="old.jpg", camera_id=db.write_camera(camera)))
    with pytest.raises(DatabaseError, match=r"old\.jpg in the database has no frame"):
        run(database, source)
