"""Import into a COLMAP database: conventions, validation, idempotence, rebuilding, and errors without side effects."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lgbatch.colmap.database import DatabaseCounts
from lgbatch.errors import DatabaseError, InputError
from lgbatch.types import FloatArray, IntArray, Pair
from tests.colmap.helpers import array, run_script
from tests.helpers.synthetic import SIZE, Source, content, photo, scene
from tests.helpers.synthetic import import_source as run


def test_half_a_pixel_is_added_to_keypoints(database: Path, source: Source) -> None:
    source.points["a.jpg"][:2] = [[0, 0], [62.25, 47]]
    run(database, source)
    stored = np.array(content(database)["keypoints"]["a.jpg"])
    assert stored[:2].tolist() == [[0.5, 0.5], [62.75, 47.5]]
    assert np.array_equal(stored, source.points["a.jpg"] + 0.5)


@pytest.mark.parametrize("reverse", [False, True])
def test_matches_are_stored_with_the_smaller_image_id_first(database: Path, source: Source, reverse: bool) -> None:
    indices = np.array([[0, 7], [2, 5], [4, 9]], np.int32)
    source.matches = {Pair("b.jpg", "a.jpg") if reverse else Pair("a.jpg", "b.jpg"): indices}
    run(database, source)
    script = (
        "import sqlite3, sys, json; import numpy as np; c = sqlite3.connect(sys.argv[1]);"
        "ids = dict(c.execute('select name, image_id from images'));"
        "row = c.execute('select pair_id, rows, cols, data from matches').fetchall();"
        "print(json.dumps([ids, len(row), row[0][:3], np.frombuffer(row[0][3], np.uint32).tolist()]))"
    )
    ids, rows, row, data = json.loads(run_script(script, database))
    assert ids["a.jpg"] < ids["b.jpg"] and rows == 1
    assert row == [2147483647 * ids["a.jpg"] + ids["b.jpg"], 3, 2]
    expected = indices[:, ::-1] if reverse else indices
    assert np.reshape(data, (3, 2)).tolist() == expected.tolist()


def test_every_image_has_a_frame_and_all_rows_are_counted(database: Path, source: Source) -> None:
    assert run(database, source) == DatabaseCounts(images=3, cameras=3, keypoints=60, pairs=2, matches=20)
    rows = content(database)
    assert len(rows["rigs"]) == 3
    assert {frame for _, _, frame in rows["images"].values()} == set(rows["frames"])
    assert set(rows["frames"].values()) == set(rows["rigs"])


def test_image_names_with_spaces_folders_and_accents(tmp_path: Path, database: Path) -> None:
    names = ("my photo 1.JPG", "day 1/my photo 1.JPG", "day 1/café/é ü.png")
    run(database, scene(tmp_path / "images", names))
    assert set(content(database)["images"]) == set(names)


def test_images_without_keypoints_and_pairs_without_matches(database: Path, source: Source) -> None:
    source.points["c.jpg"] = np.zeros((0, 2), np.float32)
    source.matches[Pair("b.jpg", "c.jpg")] = np.zeros((0, 2), np.int32)
    assert run(database, source) == DatabaseCounts(images=3, cameras=3, keypoints=40, pairs=1, matches=10)
    assert content(database)["keypoints"]["c.jpg"] == []
    assert run(database, source) == DatabaseCounts()


INVALID_KEYPOINTS = {
    "nan": array([[1, np.nan]], np.float32),
    "infinite": array([[np.inf, 1]], np.float32),
    "three columns": np.zeros((3, 3), np.float32),
    "one axis": np.zeros(4, np.float32),
}
INVALID_MATCHES = {
    "negative": array([[-1, 0]]),
    "out of range in the first image": array([[20, 0]]),
    "out of range in the second image": array([[0, 20]]),
    "keypoint of the first image twice": array([[1, 2], [1, 3]]),
    "keypoint of the second image twice": array([[1, 2], [3, 2]]),
    "three columns": np.zeros((2, 3), np.int32),
    "not integers": array([[0, 1]], np.float32),
}


@pytest.mark.parametrize("points", INVALID_KEYPOINTS.values(), ids=INVALID_KEYPOINTS)
def test_invalid_keypoints_are_rejected(database: Path, source: Source, points: FloatArray) -> None:
    source.points["b.jpg"] = points
    with pytest.raises(DatabaseError, match=r"image b\.jpg .*extract it again"):
        run(database, source)
    assert not list(database.parent.glob("database*"))


@pytest.mark.parametrize("indices", INVALID_MATCHES.values(), ids=INVALID_MATCHES)
def test_invalid_matches_are_rejected(database: Path, source: Source, indices: IntArray) -> None:
    source.matches[Pair("b.jpg", "c.jpg")] = indices
    with pytest.raises(DatabaseError, match=r"pair b\.jpg c\.jpg .*match it again"):
        run(database, source)
    assert not list(database.parent.glob("database*"))


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        (Pair("a.jpg", "a.jpg"), "with itself"),
        (Pair("a.jpg", "none.jpg"), r"none\.jpg has no features"),
        (Pair("b.jpg", "a.jpg"), "appears twice"),
    ],
)
def test_invalid_pairs_are_rejected(database: Path, source: Source, pair: Pair, reason: str) -> None:
    source.matches[pair] = array([[0, 1]])
    with pytest.raises(DatabaseError, match=reason):
        run(database, source)
    assert not list(database.parent.glob("database*"))


def test_missing_or_replaced_photos_are_rejected(database: Path, source: Source) -> None:
    file = database.parent / "images" / "b.jpg"
    file.unlink()
    with pytest.raises(DatabaseError, match=r"image b\.jpg has features but is not in"):
        run(database, source)
    photo(file.parent, file.name, (48, 64))
    with pytest.raises(DatabaseError, match=r"b\.jpg is 48x64 in COLMAP, but its features are from a 64x48 image"):
        run(database, source)
    assert not list(database.parent.glob("database*"))


def test_no_image_or_a_repeated_image_is_rejected(
    database: Path, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DatabaseError, match="no image has features"):
        run(database, Source())
    monkeypatch.setattr(source, "names", lambda: ["a.jpg", "b.jpg", "a.jpg"], raising=False)
    with pytest.raises(DatabaseError, match=r"a\.jpg appears twice"):
        run(database, source)


def test_an_unknown_camera_model_is_rejected(database: Path, source: Source) -> None:
    with pytest.raises(InputError, match=r"PINHOLEY.*SIMPLE_RADIAL"):
        run(database, source, model="PINHOLEY")


def add_geometry(path: Path) -> None:
    """Write a two-view geometry for the pair of a.jpg and b.jpg."""
    import pycolmap

    with pycolmap.Database.open(path) as db:
        ids = [db.read_image_with_name(name).image_id for name in ("a.jpg", "b.jpg")]
        geometry = pycolmap.TwoViewGeometry()
        geometry.inlier_matches = np.array([[3, 4], [5, 6]], np.uint32)
        db.write_two_view_geometry(*ids, geometry)


def test_a_repeated_import_does_not_touch_the_file(database: Path, source: Source) -> None:
    run(database, source)
    add_geometry(database)
    before, modified = database.read_bytes(), database.stat().st_mtime_ns
    assert run(database, source) == DatabaseCounts()
    assert (database.read_bytes(), database.stat().st_mtime_ns) == (before, modified)
    source.matches = {Pair(b, a): indices[:, ::-1] for (a, b), indices in source.matches.items()}
    assert run(database, source) == DatabaseCounts()
    assert [p.name for p in database.parent.glob("database*")] == ["database.db"]


def test_an_append_keeps_existing_rows(tmp_path: Path, database: Path) -> None:
    everything = scene(tmp_path / "images", ("a.jpg", "b.jpg", "c.jpg", "0.jpg"))
    subset = Source(
        {name: everything.points[name] for name in ("a.jpg", "b.jpg")},
        everything.sizes,
        {Pair("a.jpg", "b.jpg"): everything.matches[Pair("a.jpg", "b.jpg")]},
    )
    run(database, subset)
    add_geometry(database)
    before = content(database)
    assert run(database, everything) == DatabaseCounts(images=2, cameras=2, keypoints=40, pairs=2, matches=20)
    after = content(database)
    for table in ("images", "keypoints", "matches", "verified", "cameras", "frames"):
        assert before[table].items() <= after[table].items()
    assert len(after["verified"]) == 1 and len(after["frames"]) == 4
    assert run(database, subset) == DatabaseCounts()


def move_keypoints(source: Source) -> None:
    source.points["a.jpg"] = source.points["a.jpg"] + np.float32(1)


def replace_keypoints(source: Source) -> None:
    source.points["a.jpg"] = np.zeros((30, 2), np.float32)


def swap_matches(source: Source) -> None:
    source.matches[Pair("a.jpg", "b.jpg")] = source.matches[Pair("a.jpg", "b.jpg")][:, ::-1]


def drop_a_match(source: Source) -> None:
    source.matches[Pair("a.jpg", "b.jpg")] = source.matches[Pair("a.jpg", "b.jpg")][1:]


def drop_all_matches(source: Source) -> None:
    source.matches[Pair("a.jpg", "b.jpg")] = np.zeros((0, 2), np.int32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (move_keypoints, r"image a\.jpg has different keypoints"),
        (replace_keypoints, r"image a\.jpg has different keypoints"),
        (swap_matches, r"pair a\.jpg b\.jpg has different matches"),
        (drop_a_match, r"pair a\.jpg b\.jpg has different matches"),
        (drop_all_matches, r"pair a\.jpg b\.jpg has different matches"),
    ],
)
def test_a_database_that_differs_from_the_input_is_refused_and_kept(
    database: Path, source: Source, change: Callable[[Source], None], message: str
) -> None:
    run(database, source)
    before = database.read_bytes()
    change(source)
    source.points["d.jpg"], source.sizes["d.jpg"] = source.points["b.jpg"], SIZE
    photo(database.parent / "images", "d.jpg", SIZE)
    with pytest.raises(DatabaseError, match=message + ".*delete the database.*another workspace"):
        run(database, source)
    assert database.read_bytes() == before
    assert [p.name for p in database.parent.glob("database*")] == ["database.db"]


def drop_a_pair(source: Source) -> None:
    del source.matches[Pair("a.jpg", "b.jpg")]


def drop_an_image(source: Source) -> None:
    del source.points["a.jpg"], source.sizes["a.jpg"], source.matches[Pair("a.jpg", "b.jpg")]


@pytest.mark.parametrize(
    "change", [move_keypoints, replace_keypoints, swap_matches, drop_a_match, drop_a_pair, drop_an_image]
)
def test_a_view_that_differs_from_the_input_is_built_anew(
    database: Path, source: Source, change: Callable[[Source], None]
) -> None:
    run(database, source)
    add_geometry(database)
    assert run(database, source, view=True) == DatabaseCounts()
    assert len(content(database)["verified"]) == 1
    change(source)
    counts = run(database, source, view=True)
    assert counts.rebuilt and counts.images == len(source.points)
    assert counts.matches == sum(len(indices) for indices in source.matches.values())
    assert counts.dropped_images == (change is drop_an_image)
    assert counts.dropped_pairs == (change in (drop_a_pair, drop_an_image))
    rows = content(database)
    run(database.with_name("fresh.db"), source)
    assert rows == content(database.with_name("fresh.db"))
    assert rows["verified"] == {}
    assert not list(database.parent.glob("*.partial")) + list(database.parent.glob("*.previous"))


def test_a_rebuilt_view_keeps_the_geometry_of_unchanged_pairs(database: Path, source: Source) -> None:
    run(database, source)
    add_geometry(database)
    before = content(database)["verified"]
    del source.points["c.jpg"], source.sizes["c.jpg"], source.matches[Pair("b.jpg", "c.jpg")]
    counts = run(database, source, view=True)
    assert (counts.dropped_images, counts.dropped_pairs) == (1, 1)
    assert content(database)["verified"] == before != {}


def test_an_interrupted_import_leaves_no_file(database: Path, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(pair: Pair) -> IntArray:
        raise KeyboardInterrupt

    monkeypatch.setattr(source, "indices", fail, raising=False)
    with pytest.raises(KeyboardInterrupt):
        run(database, source)
    assert not list(database.parent.glob("database*"))


def test_a_file_that_is_not_a_database_is_refused(database: Path, source: Source) -> None:
    database.write_text("hello" * 1000)
    with pytest.raises(DatabaseError, match=r"database\.db is not a COLMAP database"):
        run(database, source)
    assert [p.name for p in database.parent.glob("database*")] == ["database.db"]
