"""Complete runs with the real weights, through the command line."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from lgbatch.config import Settings
from lgbatch.pipelines import sfm
from lgbatch.reconstruction.evaluation.evaluate import evaluate
from lgbatch.reconstruction.evaluation.formats.strecha import read_strecha
from lgbatch.workspace.folder import Workspace

pytestmark = pytest.mark.weights

DATA = Path(__file__).parents[3] / "shared" / "data"
SUMMARY_KEYS = {
    "images",
    "failed_images",
    "keypoints",
    "pairs",
    "matched_pairs",
    "verified_pairs",
    "registered_images",
    "points3D",
    "seconds",
    "peak_memory_mb",
    "versions",
    "settings",
}


def lgbatch(*arguments: str | Path, expect: int = 0) -> str:
    """Run the command and return its standard output."""
    done = subprocess.run([sys.executable, "-m", "lgbatch", *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == expect, done.stderr
    return done.stdout


def rows(database: Path) -> bytes:
    """A database as SQL. Uses a process of its own: sqlite3 and pycolmap do not see each other's locks."""
    script = "import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).iterdump())"
    return subprocess.run([sys.executable, "-c", script, str(database)], capture_output=True, check=True).stdout


@pytest.fixture(scope="module")
def demo(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The workspace of `lgbatch demo` with default settings."""
    folder = tmp_path_factory.mktemp("demo")
    lgbatch("demo", "-o", folder, "--models", models)
    return Workspace(folder)


def test_the_demo_registers_all_cameras_accurately(demo: Workspace) -> None:
    summary = json.loads(demo.summary.read_text())
    assert summary.keys() >= SUMMARY_KEYS
    assert (summary["images"], summary["failed_images"], summary["registered_images"]) == (12, 0, 12)
    assert (summary["pairs"], summary["keypoints"]) == (66, 12 * 2048)
    accuracy = summary["accuracy"]
    assert accuracy["registered_cameras"] == accuracy["known_cameras"] == 12
    assert accuracy["rotation_error_deg_max"] < 0.1
    assert accuracy["position_error_max"] < 0.01  # metres; the room is 7 m wide
    assert summary["refined"][0]["change"] == "aligned"
    assert accuracy["relative_rotation_error_deg_median"] < 0.01  # 0.004, and 0.024 as mapped
    assert cv2.imread(str(demo.root / "model.png")) is not None
    assert len(list((demo.root / "cameras").glob("*.jpg.camera"))) == 12


def test_the_demo_stores_have_the_layout_of_hloc(demo: Workspace) -> None:
    with h5py.File(demo.features, "r") as features, h5py.File(demo.matches, "r") as matches:
        image = features["view_03.jpg"]
        count = len(image["keypoints"])
        assert image["keypoints"].shape == (count, 2) and image["keypoints"].dtype == np.float32
        assert image["descriptors"].shape == (128, count)
        assert image["scores"].shape == (count,)
        assert image["image_size"][()].tolist() == [1024, 768]
        pair = matches["view_03.jpg/view_04.jpg"]
        assert pair["matches0"].shape == pair["matching_scores0"].shape == (count,)
        assert (pair["matches0"][()] >= 0).sum() > 300
    assert len(demo.pairs.read_text().splitlines()) == 66


def test_a_second_run_changes_nothing(demo: Workspace, models: Path) -> None:
    def state() -> list[bytes]:
        model = [file.read_bytes() for file in sorted((demo.sparse / "0").rglob("*.bin"))]
        return [demo.features.read_bytes(), demo.matches.read_bytes(), rows(demo.database), *model]

    before = state()
    first = json.loads(demo.summary.read_text())
    again = sfm.run(demo.root / "images", demo.root, models=models)
    assert state() == before
    assert (again.registered_images, again.points3D) == (first["registered_images"], first["points3D"])


def test_single_stages_on_names_with_spaces(models: Path, gallery: Path, tmp_path: Path) -> None:
    images, work = tmp_path / "my photos", tmp_path / "work"
    for i in range(4):
        folder = images / f"day {i % 2 + 1}"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(gallery / f"view_{i + 4:02d}.jpg", folder / f"my photo {i + 1}.JPG")
    (images / "notes.jpg").write_text("not a photo")
    options = ("-w", work, "--json")
    extracted = json.loads(lgbatch("extract", images, "--max-keypoints", "700", "--models", models, *options, expect=1))
    assert (extracted["images"], extracted["failed_images"], extracted["keypoints"]) == (5, 1, 2800)
    assert extracted["failures"][0]["name"] == "notes.jpg"
    assert json.loads(lgbatch("pairs", *options))["pairs"] == 6
    assert "\t" in (work / "pairs.txt").read_text()
    matched = json.loads(lgbatch("match", work / "pairs.txt", "--models", models, *options))
    assert (matched["pairs"], matched["matched_pairs"]) == (6, 6)
    done = json.loads(lgbatch("reconstruct", *options, expect=1))
    assert done["registered_images"] == 4
    assert [(photo["name"], photo["cause"]) for photo in done["unregistered"]] == [("notes.jpg", "failed")]
    assert (work / "sparse" / "0" / "images.bin").is_file()


def test_photos_without_texture_end_with_advice(models: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for i in range(3):
        cv2.imwrite(str(images / f"{i}.png"), np.full((120, 160, 3), 60 * i, np.uint8))
    result = sfm.run(images, tmp_path / "out", models=models)
    assert (result.images, result.registered_images, result.exit_status) == (3, 0, 1)
    assert result.advice and "add photos that overlap" in result.advice and "`" not in result.advice


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the fountain-P11 photos")
def test_fountain_p11_is_accurate(models: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = json.loads(lgbatch("run", DATA / "fountain-P11" / "images", "-o", out, "--models", models, "--json"))
    accuracy = evaluate(out / "sparse" / "0", read_strecha(DATA / "fountain-P11" / "gt_dense_cameras"))
    print(accuracy, summary["seconds"], summary["peak_memory_mb"])
    assert (summary["images"], summary["registered_images"]) == (11, 11)
    assert accuracy.auc[1] >= 90  # 93.6, and 68.6 as mapped
    assert accuracy.auc[5] >= 97
    assert accuracy.position_median is not None and accuracy.position_median <= 0.004  # metres
    assert summary["peak_memory_mb"] <= 3000


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the sacre_coeur photos")
def test_internet_photos_have_a_model(models: Path, tmp_path: Path) -> None:
    result = sfm.run(DATA / "sacre_coeur" / "mapping", tmp_path, models=models, settings=Settings(max_keypoints=1024))
    assert (result.images, result.failed_images) == (10, 0)
    assert result.registered_images is not None and result.registered_images >= 2
