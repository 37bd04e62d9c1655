"""Verification and mapping, on synthetic scenes that COLMAP makes without any model."""

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lgbatch.colmap.database import import_database
from lgbatch.config import Settings
from lgbatch.errors import DatabaseError, ReconstructionError
from lgbatch.reconstruction import subprocess_worker as apart
from lgbatch.reconstruction.advice import advice
from lgbatch.reconstruction.model_folders import replace_models
from lgbatch.reconstruction.progress import Progress
from lgbatch.reconstruction.reconstruct import reconstruct
from lgbatch.reconstruction.results import Model, Reconstruction, format_table
from lgbatch.types import Pair
from tests.helpers.synthetic import Source, content, synthetic


def fill(folder: Path, source: Source) -> Path:
    path = folder / "database.db"
    import_database(path, folder / "images", source, source, camera_mode="auto", camera_model="SIMPLE_RADIAL")
    return path


def run(folder: Path, **options: Any) -> Reconstruction:
    return reconstruct(folder / "database.db", folder / "images", folder / "sparse", settings=Settings(**options))


def poses(folder: Path) -> dict[str, bytes]:
    import pycolmap

    model = pycolmap.Reconstruction(folder / "sparse" / "0")
    return {i.name: i.cam_from_world().matrix().tobytes() for i in model.images.values()}


@pytest.mark.parametrize("mapper", ["incremental", "global"])
def test_every_image_is_registered(tmp_path: Path, mapper: str, capfd: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path, synthetic(tmp_path, 8))
    result = run(tmp_path, mapper=mapper)
    assert (result.images, result.images_with_keypoints) == (8, 8)
    assert (result.matched_pairs, result.verified_pairs) == (28, 28)
    (model,) = result.models
    assert model.registered_images == 8 and model.points3D > 150
    assert 0.2 < model.mean_reprojection_error < 1 and model.mean_track_length > 4
    assert model.observations == round(model.mean_track_length * model.points3D)
    assert advice(result, mapper) == ""
    assert len(poses(tmp_path)) == 8
    assert not (tmp_path / "sparse.partial").exists()
    assert capfd.readouterr() == ("", "")


def test_again_gives_the_same(tmp_path: Path) -> None:
    database = fill(tmp_path, synthetic(tmp_path, 5))
    run(tmp_path)
    verified, first = content(database)["verified"], poses(tmp_path)
    assert len(verified) == 10
    (tmp_path / "finished.json").unlink()
    assert not run(tmp_path, threads=2).finished_already
    assert content(database)["verified"] == verified
    assert poses(tmp_path) == first


def test_two_images_are_enough(tmp_path: Path) -> None:
    fill(tmp_path, synthetic(tmp_path, 2))
    result = run(tmp_path)
    assert [m.registered_images for m in result.models] == [2]


@pytest.mark.parametrize("mapper", ["incremental", "global"])
@pytest.mark.parametrize("suffix", [".webp", ".jp2"])
def test_photos_that_colmap_cannot_read(tmp_path: Path, mapper: str, suffix: str) -> None:
    fill(tmp_path, synthetic(tmp_path, 4, suffix=suffix))
    assert [m.registered_images for m in run(tmp_path, mapper=mapper).models] == [4]


def test_largest_model_comes_first(tmp_path: Path) -> None:
    small, large = synthetic(tmp_path, 4, "a"), synthetic(tmp_path, 6, "b", seed=1)
    both = Source(small.points | large.points, small.sizes | large.sizes, small.found | large.found)
    fill(tmp_path, both)
    result = run(tmp_path)
    assert [m.registered_images for m in result.models] == [6, 4]
    assert {name[0] for name in poses(tmp_path)} == {"b"}
    assert "6 of 10 images" in advice(result)
    assert sorted(p.name for p in (tmp_path / "sparse").iterdir()) == ["0", "1"]


def old_models(folder: Path) -> Path:
    sparse = folder / "sparse"
    for name in ("0", "7", "mine"):
        (sparse / name).mkdir(parents=True)
        (sparse / name / "notes.txt").write_text(name)
    return sparse


def test_new_models_replace_the_numbered_ones(tmp_path: Path) -> None:
    fill(tmp_path, synthetic(tmp_path, 3))
    sparse = old_models(tmp_path)
    run(tmp_path)
    assert sorted(p.name for p in sparse.iterdir()) == ["0", "mine"]
    assert not (sparse / "0" / "notes.txt").exists() and (sparse / "0" / "points3D.bin").exists()


def test_old_models_stay_when_nothing_registers(tmp_path: Path) -> None:
    source = synthetic(tmp_path, 3)
    source.found = {}
    fill(tmp_path, source)
    sparse = old_models(tmp_path)
    result = run(tmp_path)
    assert result.models == () and result.matched_pairs == result.verified_pairs == 0
    assert "no two images match" in advice(result)
    assert result.older_models and "models in sparse/ are of an earlier run" in advice(result)
    assert sorted(p.name for p in sparse.iterdir()) == ["0", "7", "mine"]
    assert [p.name for p in tmp_path.glob("sparse*")] == ["sparse"]


def test_a_failed_swap_is_undone(tmp_path: Path) -> None:
    sparse = old_models(tmp_path)
    (tmp_path / "new").mkdir()
    with pytest.raises(OSError, match="missing"):
        replace_models([tmp_path / "new", tmp_path / "missing"], sparse, tmp_path / "old")
    assert (sparse / "0" / "notes.txt").read_text() == "0"
    assert sorted(p.name for p in sparse.iterdir()) == ["0", "7", "mine"]


def test_blank_images(tmp_path: Path) -> None:
    source = synthetic(tmp_path, 3)
    source.points = {name: points[:0] for name, points in source.points.items()}
    source.found = {}
    fill(tmp_path, source)
    result = run(tmp_path)
    assert (result.images, result.images_with_keypoints, result.models) == (3, 0, ())
    assert "0 of 3 images have keypoints" in advice(result) and "earlier" not in advice(result)


def test_matches_without_geometry(tmp_path: Path) -> None:
    source = synthetic(tmp_path, 3)
    rng = np.random.default_rng(0)
    for pair, indices in source.found.items():
        source.found[pair] = np.stack([indices[:12, 0], rng.permutation(indices[:12, 1])], axis=1)
    fill(tmp_path, source)
    result = run(tmp_path)
    assert (result.matched_pairs, result.verified_pairs, result.models) == (3, 0, ())
    assert "3 pairs match, but none" in advice(result)


NOTHING = Reconstruction(
    images=9,
    images_with_keypoints=9,
    matched_pairs=30,
    verified_pairs=20,
    most_inliers=500,
    models=(),
    seconds_verification=1.0,
    seconds_mapping=1.0,
)


@pytest.mark.parametrize(
    ("changes", "mapper", "cause", "flag"),
    [
        ({"images_with_keypoints": 1}, "incremental", "1 of 9 images have keypoints", "--resize 0"),
        ({"matched_pairs": 0, "verified_pairs": 0}, "incremental", "no two images match", "--pairing exhaustive"),
        ({"verified_pairs": 0}, "incremental", "30 pairs match, but none", "--max-keypoints"),
        ({"most_inliers": 40}, "incremental", "the best has 40 inlier matches", "--max-keypoints"),
        ({}, "incremental", "hardly moved", "--camera-mode single"),
        ({}, "global", "three images", "--mapper incremental"),
    ],
)
def test_advice_names_cause_and_flag(changes: dict[str, int], mapper: str, cause: str, flag: str) -> None:
    text = advice(replace(NOTHING, **changes), mapper)
    assert cause in text and flag in text and "\n" not in text


def test_table() -> None:
    lines = format_table([Model(11, 2227, 9786, 0.491, 4.394), Model(3, 50, 120, 0.7, 2.4)]).splitlines()
    assert len(lines) == 3 and len({len(line) for line in lines}) == 1
    assert lines[1].split() == ["0", "11", "2227", "9786", "0.49", "px", "4.39"]


def test_databases_that_cannot_be_used(tmp_path: Path) -> None:
    import pycolmap

    database = tmp_path / "database.db"
    with pytest.raises(ReconstructionError, match=r"no database .*lgbatch match"):
        run(tmp_path)
    assert not database.exists()
    pycolmap.Database.open(database).close()
    with pytest.raises(ReconstructionError, match=r"holds no images"):
        run(tmp_path)
    database.write_text("hello" * 1000)
    with pytest.raises(DatabaseError, match=r"no COLMAP database"):
        run(tmp_path)


def test_matches_that_would_crash_colmap(tmp_path: Path) -> None:
    import pycolmap

    source = synthetic(tmp_path, 3)
    removed = source.found.pop(Pair("1.jpg", "3.jpg"))
    database = fill(tmp_path, source)
    removed[0, 1] = 100_000
    with pycolmap.Database.open(database) as db:
        db.write_matches(1, 3, removed.astype(np.uint32))
    with pytest.raises(ReconstructionError, match=r"images 1 and 3 point outside"):
        run(tmp_path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("UPDATE keypoints SET rows = -1 WHERE image_id = 1", "is damaged"),
        ("UPDATE keypoints SET data = x'00' WHERE image_id = 1", "COLMAP failed"),
        ("UPDATE matches SET pair_id = -1 WHERE pair_id = 2147483649", "point outside"),
        ("UPDATE matches SET pair_id = 2147483647 * 7 + 9 WHERE pair_id = 2147483649", "images 7 and 9 point outside"),
    ],
)
def test_rows_that_would_crash_colmap(tmp_path: Path, change: str, reason: str) -> None:
    database = fill(tmp_path, synthetic(tmp_path, 3))
    script = "import sqlite3, sys\nwith sqlite3.connect(sys.argv[1]) as c: c.execute(sys.argv[2])"
    subprocess.run([sys.executable, "-c", script, database, change], check=True)
    with pytest.raises(ReconstructionError, match=reason):
        run(tmp_path)


def test_an_unwritable_place_for_models(tmp_path: Path) -> None:
    fill(tmp_path, synthetic(tmp_path, 3))
    (tmp_path / "sparse").write_text("a file")
    with pytest.raises(ReconstructionError, match=r"cannot write .*sparse"):
        run(tmp_path)
    assert (tmp_path / "sparse").read_text() == "a file"


LOCK = """
import sqlite3, sys
lock = sqlite3.connect(sys.argv[1], isolation_level=None)
lock.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


def test_a_database_that_is_locked_amid_verification(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = fill(tmp_path, synthetic(tmp_path, 24))
    command = [sys.executable, "-c", LOCK, str(database)]
    original, others = Progress.__call__, []

    def lock(progress: Progress, message: dict[str, str] | None) -> None:
        original(progress, message)
        if message is None and not others:  # some tenths of a second after it has begun
            others.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            others[0].stdout.readline()

    monkeypatch.setattr(Progress, "__call__", lock)
    try:
        with pytest.raises(ReconstructionError, match=r"COLMAP failed: .*close other programs"):
            run(tmp_path)
    finally:
        others[0].communicate()
    assert run(tmp_path).models[0].registered_images == 24


def test_a_process_that_is_killed_is_told_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, synthetic(tmp_path, 4))
    original, start = Progress.__call__, apart._start
    started = []
    monkeypatch.setattr(apart, "_start", lambda name: started.append(start(name)) or started[-1])

    def kill(progress: Progress, message: dict[str, str] | None) -> None:
        original(progress, message)
        if len(started) == 1:
            started[0].kill()

    monkeypatch.setattr(Progress, "__call__", kill)
    with pytest.raises(ReconstructionError, match=r"ended by SIGKILL; was memory short"):
        run(tmp_path)
    assert not (tmp_path / "sparse.partial").exists()
    assert run(tmp_path).models[0].registered_images == 4


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_killed_with_its_parent(tmp_path: Path) -> None:
    fill(tmp_path, synthetic(tmp_path, 60))
    code = "import sys; from pathlib import Path; from lgbatch.reconstruction.reconstruct import reconstruct as r\n"
    code += "at = Path(sys.argv[1]); r(at / 'database.db', at / 'images', at / 'sparse')"
    with subprocess.Popen([sys.executable, "-c", code, tmp_path]) as parent:
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
        end = time.monotonic() + 60
        while not (tmp_path / "sparse.partial").exists() or not children.read_text():
            assert time.monotonic() < end
            time.sleep(0.01)
        child = children.read_text().split()[0]
        time.sleep(0.3)
        assert b"lgbatch.reconstruction.colmap_worker" in Path(f"/proc/{child}/cmdline").read_bytes()
        parent.kill()
    end = time.monotonic() + 2
    command = Path(f"/proc/{child}/cmdline")
    while command.exists() and command.read_bytes():  # a process that nobody has asked about yet has none
        assert time.monotonic() < end
        time.sleep(0.01)
