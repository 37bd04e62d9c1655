"""The refine stage: models in a workspace, the mapped ones beside them, and runs that change nothing."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pycolmap
import pytest

from lgbatch.config import Settings
from lgbatch.errors import ReconstructionError
from lgbatch.reconstruction.refinement.refine import UNREFINED, refine
from lgbatch.reconstruction.refinement.results import Refinement, format_refinement
from lgbatch.storage.features import FeatureStore
from lgbatch.workspace.folder import Workspace
from tests.reconstruction.refinement.helpers import Scene, make_scene


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return make_scene(tmp_path_factory.mktemp("refine") / "photos")


def workspace(folder: Path, scene: Scene, models: int = 1) -> Workspace:
    for number in range(models):
        (folder / "sparse" / str(number)).mkdir(parents=True)
        scene.model.write(folder / "sparse" / str(number))
    return Workspace(folder)


def run(files: Workspace, scene: Scene, **settings: Any) -> Refinement:
    return refine(files, scene.photos, Settings(**settings))


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.suffix == ".bin"}


def test_the_refined_model_replaces_the_mapped_one_which_is_kept(tmp_path: Path, scene: Scene) -> None:
    files = workspace(tmp_path, scene)
    (files.sparse / "0" / "notes.txt").write_text("mine")
    mapped = content(files.sparse / "0")
    result = run(files, scene)
    (model,), (refined,) = result.models, result.refined
    assert refined.change == "aligned" and result.seconds > 0 and not result.problem
    assert content(files.sparse / "0" / UNREFINED) == mapped != content(files.sparse / "0")
    assert (files.sparse / "0" / "notes.txt").read_text() == "mine"
    stored = pycolmap.Reconstruction(files.sparse / "0")
    assert (
        stored.compute_mean_reprojection_error() == pytest.approx(model.mean_reprojection_error) == refined.error_after
    )
    assert stored.compute_num_observations() == model.observations == refined.kept
    assert not (tmp_path / "sparse.partial").exists()
    (line,) = format_refinement(json.loads(json.dumps(result.figures())))
    assert line.startswith("refined     model 0: reprojection error 0.81 -> 0.0") and "% of the observations" in line


def test_a_second_run_changes_nothing_and_other_settings_start_from_the_mapped_model(
    tmp_path: Path, scene: Scene
) -> None:
    files = workspace(tmp_path, scene)
    mapped, first = content(files.sparse / "0"), run(files, scene)
    after = content(files.sparse / "0")
    second = run(files, scene)
    assert second.finished_already and second.refined == first.refined and second.seconds == 0
    assert run(files, scene, refine_intrinsics="none").models[0] != first.models[0]
    assert content(files.sparse / "0" / UNREFINED) == mapped
    off = run(files, scene, refine=False)
    assert content(files.sparse / "0") == mapped and not (files.sparse / "0" / UNREFINED).exists()
    assert off.models == () and off.figures() is None and run(files, scene, refine=False).finished_already
    assert run(files, scene).models == first.models
    assert content(files.sparse / "0") == after


def test_each_model_is_refined_and_one_that_is_not_better_stays(tmp_path: Path, scene: Scene) -> None:
    files = workspace(tmp_path, scene, models=2)
    small = pycolmap.Reconstruction(scene.model)
    for point in list(small.points3D)[40:]:
        small.delete_point3D(point)
    small.write(files.sparse / "1")
    mapped = content(files.sparse / "1")
    result = run(files, scene)
    assert [model.change for model in result.refined] == ["aligned", "none"]
    assert content(files.sparse / "1") == mapped and not (files.sparse / "1" / UNREFINED).exists()
    assert "model 1: as mapped: too few" in format_refinement(result.figures() or [])[1]


def test_photos_that_are_gone_leave_the_model_as_it_is(tmp_path: Path, scene: Scene) -> None:
    shutil.copytree(scene.photos, tmp_path / "photos")
    for photo in sorted((tmp_path / "photos").iterdir())[1:]:
        photo.unlink()
    files = workspace(tmp_path, scene)
    mapped = content(files.sparse / "0")
    result = refine(files, tmp_path / "photos", Settings())
    assert result.refined[0].change == "none" and not result.problem
    assert content(files.sparse / "0") == mapped


def test_an_unreadable_model_is_a_problem_and_stays(tmp_path: Path, scene: Scene) -> None:
    files = workspace(tmp_path, scene)
    (files.sparse / "0" / "images.bin").write_bytes(b"")
    mapped = content(files.sparse / "0")
    result = run(files, scene)
    assert result.problem and not result.finished_already
    assert content(files.sparse / "0") == mapped
    assert format_refinement(result.figures() or []) == [f"refined     left out: {result.problem}"]
    assert not run(files, scene).finished_already
    assert not (tmp_path / "sparse.partial").exists()


def test_a_workspace_without_a_model(tmp_path: Path, scene: Scene) -> None:
    with pytest.raises(ReconstructionError, match="no models: run `lgbatch reconstruct` first"):
        run(Workspace(tmp_path), scene)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_the_model_as_it_is(tmp_path: Path, number: signal.Signals, status: int, scene: Scene) -> None:
    files = workspace(tmp_path, scene)
    FeatureStore(files.features, append={}).close()
    mapped = content(files.sparse / "0")
    options = ["-w", str(tmp_path), "--images", str(scene.photos)]
    command = [sys.executable, "-m", "lgbatch", "refine", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not (tmp_path / "sparse.partial").exists() and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(number)
        stderr = process.communicate()[1]
    assert process.returncode == status, stderr
    assert stderr == "lgbatch: interrupted; run the same command again to continue\n"
    assert content(files.sparse / "0") == mapped and not (tmp_path / "sparse.partial").exists()
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    summary = json.loads(done.stdout)
    assert summary["refined"][0]["change"] == "aligned" and summary["settings"]["refine"] is True
    assert summary["models"][0]["mean_reprojection_error"] == summary["refined"][0]["error_after"]
