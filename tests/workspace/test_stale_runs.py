"""Whole runs after a change of settings or photos: the result is that of a run in an empty workspace."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import h5py
import pytest

from lgbatch.errors import StoreError
from lgbatch.pipelines import sfm
from lgbatch.workspace.folder import Workspace
from tests.helpers.synthetic import content
from tests.workspace.helpers import refusal


def write_small_views(gallery: Path, folder: Path, views: Sequence[int]) -> Path:
    folder.mkdir(exist_ok=True)
    for i in views:
        view = cv2.imread(str(gallery / f"view_{i:02d}.jpg"))
        cv2.imwrite(str(folder / f"{i}.png"), cv2.resize(view, (512, 384), interpolation=cv2.INTER_AREA))
    return folder


def workspace_content(workspace: Workspace) -> dict[str, object]:
    """The content of the stores and the database, without provenance and file layout."""
    datasets: dict[str, object] = {}

    def visit(name: str, node: h5py.HLObject) -> None:
        if isinstance(node, h5py.Dataset):
            datasets[f"{node.file.filename[-10:]} {name}"] = node[()].tolist()

    for path in workspace.features, workspace.matches:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
    return datasets | {f"database {key}": value for key, value in content(workspace.database).items()}


@pytest.mark.weights
def test_a_run_with_other_settings_ends_like_a_fresh_run(models: Path, gallery: Path, tmp_path: Path) -> None:
    photos = write_small_views(gallery, tmp_path / "photos", range(3, 8))
    first, fresh = Workspace(tmp_path / "first"), Workspace(tmp_path / "fresh")
    sfm.run(photos, first.root, models=models, max_keypoints=600)
    with pytest.raises(StoreError) as error:
        sfm.run(photos, first.root, models=models, max_keypoints=400)
    assert "5 photos were extracted with max_keypoints 600 (now 400)" in refusal(error)
    again = sfm.run(photos, first.root, models=models, max_keypoints=400, on_change="recompute")
    expected = sfm.run(photos, fresh.root, models=models, max_keypoints=400)
    assert workspace_content(first) == workspace_content(fresh)
    assert (again.registered_images, again.points3D) == (expected.registered_images, expected.points3D)
    assert again.registered_images == 5
    # A repeated run needs no --on-change and changes nothing.
    before = [first.features.read_bytes(), first.matches.read_bytes()]
    sfm.run(photos, first.root, models=models, max_keypoints=400)
    assert [first.features.read_bytes(), first.matches.read_bytes()] == before
    # A change of matching settings alone leaves the features as they are.
    sfm.run(photos, first.root, models=models, max_keypoints=400, filter_threshold=0.3, on_change="recompute")
    assert first.features.read_bytes() == before[0]
    sfm.run(photos, fresh.root / "3", models=models, max_keypoints=400, filter_threshold=0.3)
    assert workspace_content(first) == workspace_content(Workspace(fresh.root / "3"))


@pytest.mark.weights
def test_a_photo_replaced_between_runs_is_refused_kept_or_recomputed(
    models: Path, gallery: Path, tmp_path: Path
) -> None:
    photos = write_small_views(gallery, tmp_path / "photos", range(3, 8))
    out, fresh = Workspace(tmp_path / "out"), Workspace(tmp_path / "fresh")
    sfm.run(photos, out.root, models=models, max_keypoints=400)
    write_small_views(gallery, photos, [9])
    (photos / "9.png").replace(photos / "7.png")
    with pytest.raises(StoreError) as error:
        sfm.run(photos, out.root, models=models, max_keypoints=400)
    assert "1 photo has been replaced" in refusal(error)
    kept = sfm.run(photos, out.root, models=models, max_keypoints=400, on_change="keep")
    assert (kept.registered_images, kept.failures) == (5, [])
    sfm.run(photos, out.root, models=models, max_keypoints=400, on_change="recompute")
    sfm.run(photos, fresh.root, models=models, max_keypoints=400)
    assert workspace_content(out) == workspace_content(fresh)
