"""Pairs chosen in rounds, with the real models: the same as all pairs where it counts, also after a kill."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pycolmap
import pytest

import lgbatch
from lgbatch.cli.main import app
from lgbatch.colmap.sqlite import verified_pairs
from lgbatch.config import Settings
from lgbatch.errors import InputError
from lgbatch.pairing import methods
from lgbatch.pairing.pairs_file import read_pairs
from lgbatch.pipelines import sfm
from lgbatch.pipelines.pairs import rounds
from lgbatch.pipelines.pairs.choose import choose_pairs
from lgbatch.reconstruction import colmap_worker
from lgbatch.storage.matches import MatchStore
from lgbatch.types import Pair
from lgbatch.workspace.folder import Workspace
from lgbatch.workspace.forecast import BYTES_PER_PAIR

pytestmark = pytest.mark.weights

SETTINGS = {"max_keypoints": 600, "resize": 512, "second_try": 0, "rotation": "none", "refine": False}
CODE = """
import sys
from pathlib import Path
from lgbatch.pairing import methods
from lgbatch.pipelines import sfm
methods.EXHAUSTIVE = 5
sfm.run(sys.argv[1], sys.argv[2], models=Path(sys.argv[3]), {})
""".format(", ".join(f"{name}={value!r}" for name, value in SETTINGS.items()))


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "EXHAUSTIVE", 5)


@pytest.fixture(scope="module")
def done(models: Path, gallery: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A finished run in rounds."""
    out = tmp_path_factory.mktemp("rounds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(methods, "EXHAUSTIVE", 5)
        summary = sfm.run(gallery, out, models=models, settings=Settings(**SETTINGS))
    assert summary.rounds and summary.rounds["rounds"] > 1 and summary.exit_status == 0
    assert summary.pairs == summary.rounds["candidates"] or summary.pairs < 12 * 11 / 2
    assert "chosen      in " in summary.format()
    return Workspace(out)


def listed(workspace: Workspace) -> list[Pair]:
    return list(read_pairs(workspace.pairs).pairs)


def test_pairs_and_results_are_told(done: Workspace) -> None:
    tried = [json.loads(line) for line in done.tried_pairs.read_text().splitlines()]
    assert [Pair(pair["a"], pair["b"]) for pair in tried] == listed(done)
    assert {pair["why"] for pair in tried} <= {"candidate", "neighbours", "join"}
    assert any(pair["votes"] for pair in tried) and all(pair["hints"] for pair in tried if pair["why"] == "candidate")
    verified = {frozenset((pair["a"], pair["b"])): pair["inliers"] for pair in tried if pair["inliers"]}
    assert verified == verified_pairs(done.database)


def test_nothing_is_verified_twice(done: Workspace, tmp_path: Path) -> None:
    """The database has the geometries of the rounds, and they are those of COLMAP."""
    with MatchStore(done.matches) as matches:
        assert all(matches.geometry(pair) for pair in listed(done) if matches.read(pair).indices.size)
    again = tmp_path / "again.db"
    shutil.copy(done.database, again)
    with pycolmap.Database.open(again) as db:
        db.clear_two_view_geometries()
    colmap_worker._Work()._verify({"database": str(again), "threads": 2})
    assert verified_pairs(again) == verified_pairs(done.database)


def test_a_repeated_run_is_finished_and_further_photos_add_pairs(
    done: Workspace, models: Path, gallery: Path, tmp_path: Path
) -> None:
    photos, out = tmp_path / "photos", Workspace(tmp_path / "out")
    photos.mkdir()
    for photo in sorted(gallery.glob("*.jpg"))[:9]:
        shutil.copy(photo, photos)
    run = {"models": models, "settings": Settings(**SETTINGS)}
    sfm.run(photos, out.root, **run)
    before = set(listed(out))
    assert sfm.run(photos, out.root, **run).finished_already
    for photo in sorted(gallery.glob("*.jpg"))[9:]:
        shutil.copy(photo, photos)
    summary = sfm.run(photos, out.root, **run)
    assert summary.registered_images == 12 and set(listed(out)) > before
    (photos / listed(out)[0].a).unlink()  # the database is built anew, with the geometries of the other pairs
    assert sfm.run(photos, out.root, **run).registered_images == 11
    assert verified_pairs(out.database).keys() < verified_pairs(done.database).keys()


def test_a_dry_run_estimates_and_writes_no_pairs(
    done: Workspace, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(done.features, tmp_path)
    arguments = ["pairs", "-w", str(tmp_path), "--models", str(models), "--dry-run"]
    with pytest.raises(SystemExit, match="0"):
        app(arguments)
    assert re.match(
        r"in rounds, about \d+ pairs: about \d+ s of matching, \d+ kB of disk, at \d+ ms a pair\n",
        out := capsys.readouterr().out,
    ), out
    with pytest.raises(SystemExit, match="0"):
        app([*arguments, "--pairing", "exhaustive", "--json"])
    estimate = json.loads(capsys.readouterr().out)
    assert estimate["pairs"] == 66 and estimate["seconds"] == pytest.approx(66 * estimate["seconds_per_pair"], abs=0.1)
    assert not (tmp_path / "pairs.txt").exists() and not (tmp_path / "matches.h5").exists()


def test_a_dry_run_forecasts_the_pairs_that_are_not_matched(
    done: Workspace, models: Path, gallery: Path, tmp_path: Path
) -> None:
    out = Workspace(Path(shutil.copytree(done.root, tmp_path / "out")))
    estimate = partial(lgbatch.estimate_pairs, out.root, photos=gallery, models=models, **SETTINGS)
    before = {path: path.read_bytes() for path in out.root.rglob("*") if path.is_file()}
    after_rounds, pairs = estimate(), len(listed(out))
    assert after_rounds.format() == f"{pairs} pairs, all matched already: nothing is left to match"
    assert (after_rounds.seconds, after_rounds.bytes) == (0, 0)
    others = estimate(pairing="exhaustive", filter_threshold=0.3)
    assert others.matched == 0 and others.format().startswith("66 pairs: about ")
    assert estimate(pairing="exhaustive", filter_threshold=0.3, on_change="keep").matched == pairs
    assert {path: path.read_bytes() for path in before} == before
    with MatchStore(out.matches) as store:
        made_by = [entry["by"] for entry in store.provenances.values()]
    with MatchStore(out.matches, append=made_by[0]) as store:
        for pair in listed(out)[::2]:
            store.remove(pair)
    stored = pairs - len(listed(out)[::2])
    rest = estimate(pairing="exhaustive")
    assert (rest.pairs, rest.matched) == (66, stored) and rest.bytes == (66 - stored) * BYTES_PER_PAIR
    assert rest.seconds == pytest.approx((66 - stored) * rest.seconds_per_pair, abs=0.1)
    assert rest.format().startswith(f"66 pairs, {stored} of them matched already; the other {66 - stored} pairs: about")
    again = estimate()  # pairs.jsonl is kept, but the rounds would match pairs again
    assert again.matched == stored and not again.format().endswith("nothing is left to match")


def test_rounds_need_the_folder_of_the_photos(done: Workspace, models: Path, tmp_path: Path) -> None:
    shutil.copy(done.features, tmp_path)
    with pytest.raises(InputError, match=r"the folder of the photos, .*gone, does not exist"):
        choose_pairs(
            Workspace(tmp_path),
            sorted({name for pair in listed(done) for name in pair}),
            Settings(**SETTINGS),
            image_folder=tmp_path / "gone",
            models=models,
        )


def test_a_repetition_of_rounds_that_is_killed_between_its_files_is_not_an_edit(
    done: Workspace, models: Path, gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Workspace(Path(shutil.copytree(done.root, tmp_path / "out")))
    (out.root / "finished.json").unlink()  # as if it was killed before

    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(rounds, "write_pairs", kill)
        sfm.run(gallery, out.root, models=models, settings=Settings(**SETTINGS))
    assert len(out.tried_pairs.read_text().splitlines()) < len(listed(done))
    sfm.run(gallery, out.root, models=models, settings=Settings(**SETTINGS))
    assert listed(out) == listed(done)


def test_a_deleted_pairs_jsonl_is_written_again(done: Workspace, models: Path, gallery: Path, tmp_path: Path) -> None:
    out = Workspace(Path(shutil.copytree(done.root, tmp_path / "out")))
    out.tried_pairs.unlink()
    sfm.run(gallery, out.root, models=models, settings=Settings(**SETTINGS))
    assert out.tried_pairs.read_text() == done.tried_pairs.read_text()


def test_an_edited_pairs_file_is_refused(done: Workspace, models: Path, gallery: Path, tmp_path: Path) -> None:
    out = Workspace(Path(shutil.copytree(done.root, tmp_path / "out")))
    out.pairs.write_text("".join(out.pairs.read_text().splitlines(keepends=True)[5:]))
    with pytest.raises(InputError, match="was edited since"):
        sfm.run(gallery, out.root, models=models, settings=Settings(**SETTINGS))


@pytest.mark.parametrize("seconds", [0.5, 1.5, 3.0])
def test_a_killed_run_goes_on_with_the_same_pairs(
    done: Workspace, models: Path, gallery: Path, tmp_path: Path, seconds: float
) -> None:
    out = Workspace(tmp_path / "out")
    out.root.mkdir()
    shutil.copy(done.features, out.features)
    child = subprocess.Popen([sys.executable, "-c", CODE, gallery, out.root, models])
    deadline = time.monotonic() + 120
    while not out.matches.exists() and child.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(seconds)
    if child.poll() is None:
        os.kill(child.pid, signal.SIGKILL)
    child.wait()
    summary = sfm.run(gallery, out.root, models=models, settings=Settings(**SETTINGS))
    assert listed(out) == listed(done) and summary.registered_images == 12
    assert verified_pairs(out.database) == verified_pairs(done.database)
