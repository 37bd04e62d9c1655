"""The COLMAP database: conventions, validation, idempotence, and what a failure leaves behind."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lgbatch.colmap.database import DatabaseCounts
from lgbatch.errors import DatabaseError, InputError
from lgbatch.types import FloatArray, IntArray, Pair
from tests.helpers.synthetic import SIZE, Source, content, photo, scene
from tests.helpers.synthetic import import_source as run


def sqlite(script: str, *args: object) -> str:
    """What `script` prints in a process of its own: sqlite3 and pycolmap do not see each other's locks."""
    command = [sys.executable, "-c", script, *map(str, args)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_keypoints_gain_half_a_pixel(database: Path, source: Source) -> None:
    source.points["a.jpg"][:2] = [[0, 0], [62.25, 47]]
    run(database, source)
    stored = np.array(content(database)["keypoints"]["a.jpg"])
    assert stored[:2].tolist() == [[0.5, 0.5], [62.75, 47.5]]
    assert np.array_equal(stored, source.points["a.jpg"] + 0.5)


@pytest.mark.parametrize("reverse", [False, True])
def test_raw_rows_have_the_smaller_id_first(database: Path, source: Source, reverse: bool) -> None:
    indices = np.array([[0, 7], [2, 5], [4, 9]], np.int32)
    source.found = {Pair("b.jpg", "a.jpg") if reverse else Pair("a.jpg", "b.jpg"): indices}
    run(database, source)
    script = (
        "import sqlite3, sys, json; import numpy as np; c = sqlite3.connect(sys.argv[1]);"
        "ids = dict(c.execute('select name, image_id from images'));"
        "row = c.execute('select pair_id, rows, cols, data from matches').fetchall();"
        "print(json.dumps([ids, len(row), row[0][:3], np.frombuffer(row[0][3], np.uint32).tolist()]))"
    )
    ids, rows, row, data = json.loads(sqlite(script, database))
    assert ids["a.jpg"] < ids["b.jpg"] and rows == 1
    assert row == [2147483647 * ids["a.jpg"] + ids["b.jpg"], 3, 2]
    expected = indices[:, ::-1] if reverse else indices
    assert np.reshape(data, (3, 2)).tolist() == expected.tolist()


def test_counts_and_every_image_has_a_frame(database: Path, source: Source) -> None:
    assert run(database, source) == DatabaseCounts(images=3, cameras=3, keypoints=60, pairs=2, matches=20)
    rows = content(database)
    assert len(rows["rigs"]) == 3
    assert {frame for _, _, frame in rows["images"].values()} == set(rows["frames"])
    assert set(rows["frames"].values()) == set(rows["rigs"])


def test_names_with_spaces_folders_and_accents(tmp_path: Path, database: Path) -> None:
    names = ("my photo 1.JPG", "day 1/my photo 1.JPG", "day 1/café/é ü.png")
    run(database, scene(tmp_path / "images", names))
    assert set(content(database)["images"]) == set(names)


def test_blank_images_and_empty_pairs(database: Path, source: Source) -> None:
    source.points["c.jpg"] = np.zeros((0, 2), np.float32)
    source.found[Pair("b.jpg", "c.jpg")] = np.zeros((0, 2), np.int32)
    assert run(database, source) == DatabaseCounts(images=3, cameras=3, keypoints=40, pairs=1, matches=10)
    assert content(database)["keypoints"]["c.jpg"] == []
    assert run(database, source) == DatabaseCounts()


def array(rows: list[list[float]], dtype: type = np.int32) -> np.ndarray:
    return np.array(rows, dtype)


BAD_POINTS = {
    "nan": array([[1, np.nan]], np.float32),
    "infinite": array([[np.inf, 1]], np.float32),
    "columns": np.zeros((3, 3), np.float32),
    "flat": np.zeros(4, np.float32),
}
BAD_INDICES = {
    "negative": array([[-1, 0]]),
    "beyond the first": array([[20, 0]]),
    "beyond the second": array([[0, 20]]),
    "first twice": array([[1, 2], [1, 3]]),
    "second twice": array([[1, 2], [3, 2]]),
    "columns": np.zeros((2, 3), np.int32),
    "not integers": array([[0, 1]], np.float32),
}


@pytest.mark.parametrize("points", BAD_POINTS.values(), ids=BAD_POINTS)
def test_bad_keypoints(database: Path, source: Source, points: FloatArray) -> None:
    source.points["b.jpg"] = points
    with pytest.raises(DatabaseError, match=r"image b\.jpg .*extract it again"):
        run(database, source)
    assert not list(database.parent.glob("database*"))


@pytest.mark.parametrize("indices", BAD_INDICES.values(), ids=BAD_INDICES)
def test_bad_matches(database: Path, source: Source, indices: IntArray) -> None:
    source.found[Pair("b.jpg", "c.jpg")] = indices
    with pytest.raises(DatabaseError, match=r"pair b\.jpg c\.jpg .*match it again"):
        run(database, source)
    assert not list(database.parent.glob("database*"))


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        (Pair("a.jpg", "a.jpg"), "with itself"),
        (Pair("a.jpg", "none.jpg"), r"none\.jpg has no features"),
        (Pair("b.jpg", "a.jpg"), "comes twice"),
    ],
)
def test_bad_pairs(database: Path, source: Source, pair: Pair, reason: str) -> None:
    source.found[pair] = array([[0, 1]])
    with pytest.raises(DatabaseError, match=reason):
        run(database, source)
    assert not list(database.parent.glob("database*"))


def test_photos_that_are_gone_or_other(database: Path, source: Source) -> None:
    file = database.parent / "images" / "b.jpg"
    file.unlink()
    with pytest.raises(DatabaseError, match=r"image b\.jpg has features but is not in"):
        run(database, source)
    photo(file.parent, file.name, (48, 64))
    with pytest.raises(DatabaseError, match=r"b\.jpg is 48x64 to COLMAP but its features are of 64x48"):
        run(database, source)
    assert not list(database.parent.glob("database*"))


def test_features_without_images_or_twice(database: Path, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DatabaseError, match="no image has features"):
        run(database, Source())
    monkeypatch.setattr(source, "names", lambda: ["a.jpg", "b.jpg", "a.jpg"], raising=False)
    with pytest.raises(DatabaseError, match=r"a\.jpg is twice"):
        run(database, source)


def test_unknown_camera_model(database: Path, source: Source) -> None:
    with pytest.raises(InputError, match=r"PINHOLEY.*SIMPLE_RADIAL"):
        run(database, source, model="PINHOLEY")


def verify(path: Path) -> None:
    """Give the pair of a.jpg and b.jpg a two-view geometry."""
    import pycolmap

    with pycolmap.Database.open(path) as db:
        ids = [db.read_image_with_name(name).image_id for name in ("a.jpg", "b.jpg")]
        geometry = pycolmap.TwoViewGeometry()
        geometry.inlier_matches = np.array([[3, 4], [5, 6]], np.uint32)
        db.write_two_view_geometry(*ids, geometry)


def test_second_import_does_not_touch_the_file(database: Path, source: Source) -> None:
    run(database, source)
    verify(database)
    before, changed = database.read_bytes(), database.stat().st_mtime_ns
    assert run(database, source) == DatabaseCounts()
    assert (database.read_bytes(), database.stat().st_mtime_ns) == (before, changed)
    source.found = {Pair(b, a): indices[:, ::-1] for (a, b), indices in source.found.items()}
    assert run(database, source) == DatabaseCounts()
    assert [p.name for p in database.parent.glob("database*")] == ["database.db"]


def test_append_keeps_what_is_there(tmp_path: Path, database: Path) -> None:
    everything = scene(tmp_path / "images", ("a.jpg", "b.jpg", "c.jpg", "0.jpg"))
    some = Source(
        {name: everything.points[name] for name in ("a.jpg", "b.jpg")},
        everything.sizes,
        {Pair("a.jpg", "b.jpg"): everything.found[Pair("a.jpg", "b.jpg")]},
    )
    run(database, some)
    verify(database)
    before = content(database)
    assert run(database, everything) == DatabaseCounts(images=2, cameras=2, keypoints=40, pairs=2, matches=20)
    after = content(database)
    for table in ("images", "keypoints", "matches", "verified", "cameras", "frames"):
        assert before[table].items() <= after[table].items()
    assert len(after["verified"]) == 1 and len(after["frames"]) == 4
    assert run(database, some) == DatabaseCounts()


def other_keypoints(source: Source) -> None:
    source.points["a.jpg"] = source.points["a.jpg"] + np.float32(1)


def more_keypoints(source: Source) -> None:
    source.points["a.jpg"] = np.zeros((30, 2), np.float32)


def other_matches(source: Source) -> None:
    source.found[Pair("a.jpg", "b.jpg")] = source.found[Pair("a.jpg", "b.jpg")][:, ::-1]


def fewer_matches(source: Source) -> None:
    source.found[Pair("a.jpg", "b.jpg")] = source.found[Pair("a.jpg", "b.jpg")][1:]


def no_matches(source: Source) -> None:
    source.found[Pair("a.jpg", "b.jpg")] = np.zeros((0, 2), np.int32)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (other_keypoints, r"image a\.jpg has other keypoints"),
        (more_keypoints, r"image a\.jpg has other keypoints"),
        (other_matches, r"pair a\.jpg b\.jpg has other matches"),
        (fewer_matches, r"pair a\.jpg b\.jpg has other matches"),
        (no_matches, r"pair a\.jpg b\.jpg has other matches"),
    ],
)
def test_a_database_of_other_input_is_left_as_it_was(
    database: Path, source: Source, change: object, named: str
) -> None:
    run(database, source)
    before = database.read_bytes()
    change(source)
    source.points["d.jpg"], source.sizes["d.jpg"] = source.points["b.jpg"], SIZE
    photo(database.parent / "images", "d.jpg", SIZE)
    with pytest.raises(DatabaseError, match=named + ".*delete the database.*another workspace"):
        run(database, source)
    assert database.read_bytes() == before
    assert [p.name for p in database.parent.glob("database*")] == ["database.db"]


def fewer_pairs(source: Source) -> None:
    del source.found[Pair("a.jpg", "b.jpg")]


@pytest.mark.parametrize("change", [other_keypoints, more_keypoints, other_matches, fewer_matches, fewer_pairs])
def test_a_database_of_other_input_is_built_anew_where_that_is_asked_for(
    database: Path, source: Source, change: Callable[[Source], None]
) -> None:
    run(database, source)
    verify(database)
    assert run(database, source, rebuild=True) == DatabaseCounts()
    assert len(content(database)["verified"]) == 1
    change(source)
    counts = run(database, source, rebuild=True)
    assert counts.images == 3 and counts.matches == sum(len(indices) for indices in source.found.values())
    found = content(database)
    run(database.with_name("fresh.db"), source)
    assert found == content(database.with_name("fresh.db"))
    assert found["verified"] == {}
    assert not list(database.parent.glob("*.partial"))


def test_a_database_with_other_images_is_not_built_anew(database: Path, source: Source) -> None:
    run(database, source)
    before = database.read_bytes()
    other_keypoints(source)
    del source.points["c.jpg"], source.found[Pair("b.jpg", "c.jpg")]
    with pytest.raises(DatabaseError, match=r"image a\.jpg has other keypoints"):
        run(database, source, rebuild=True)
    assert database.read_bytes() == before


def test_a_source_that_fails_leaves_no_trace(database: Path, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(pair: Pair) -> IntArray:
        raise KeyboardInterrupt

    monkeypatch.setattr(source, "indices", fail, raising=False)
    with pytest.raises(KeyboardInterrupt):
        run(database, source)
    assert not list(database.parent.glob("database*"))


def test_not_a_database(database: Path, source: Source) -> None:
    database.write_text("hello" * 1000)
    with pytest.raises(DatabaseError, match=r"database\.db is no COLMAP database"):
        run(database, source)
    assert [p.name for p in database.parent.glob("database*")] == ["database.db"]
