"""Replacement of the models of an earlier run in sparse/."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lgbatch.errors import ReconstructionError
from lgbatch.reconstruction.advice import advice
from lgbatch.reconstruction.model_folders import (
    draft_folder,
    finish_replacement,
    numbered_models,
    remove_draft,
    replace_models,
)
from tests.helpers.synthetic import synthetic
from tests.reconstruction.helpers import fill, rerun, run, write_old_models


def test_new_models_replace_the_numbered_folders_only(tmp_path: Path) -> None:
    fill(tmp_path, synthetic(tmp_path, 3))
    sparse = write_old_models(tmp_path)
    run(tmp_path)
    assert sorted(p.name for p in sparse.iterdir()) == ["0", "mine"]
    assert not (sparse / "0" / "notes.txt").exists() and (sparse / "0" / "points3D.bin").exists()


def test_old_models_stay_if_no_image_is_registered(tmp_path: Path) -> None:
    source = synthetic(tmp_path, 3)
    source.matches = {}
    fill(tmp_path, source)
    sparse = write_old_models(tmp_path)
    result = run(tmp_path)
    assert result.models == () and result.matched_pairs == result.verified_pairs == 0
    assert "no two images match" in advice(result, rerun())
    assert result.older_models and "models in sparse/ are from an earlier run" in advice(result, rerun())
    assert sorted(p.name for p in sparse.iterdir()) == ["0", "7", "mine"]
    assert [p.name for p in tmp_path.glob("sparse*")] == ["sparse"]


def test_a_failed_replacement_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sparse = write_old_models(tmp_path)
    for name in "model", "other":
        (tmp_path / name).mkdir()
    rename, moved = Path.rename, []

    def fail_late(source: Path, target: Path) -> Path:
        moved.append(source)
        if target == sparse / "1" and len(moved) < 10:
            raise OSError("the folder is open")
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", fail_late)
    with pytest.raises(OSError, match="open"):
        replace_models([tmp_path / "model", tmp_path / "other"], sparse)
    assert (sparse / "0" / "notes.txt").read_text() == "0"
    assert sorted(p.name for p in sparse.iterdir()) == ["0", "7", "mine"]
    monkeypatch.undo()
    remove_draft(sparse)
    finish_replacement(sparse)
    assert sorted(p.name for p in sparse.iterdir()) == ["0", "1", "mine"]


class Killed(BaseException):
    """Ends a replacement as a kill would: nothing is undone."""


@pytest.mark.parametrize(("old", "new"), [((0, 7), 1), ((0, 1, 2), 3), ((0,), 2), ((), 1), ((0, 1, 2), 1)])
def test_after_a_kill_in_a_replacement_one_set_of_models_is_complete(
    tmp_path: Path, old: tuple[int, ...], new: int
) -> None:
    for calls in range(20):
        sparse = tmp_path / str(calls) / "sparse"
        replaced = replace_and_kill(sparse, old, new, calls)
        finish_replacement(sparse)
        remove_draft(sparse)
        found = {folder.name: (folder / "of").read_text() for folder in numbered_models(sparse)}
        olds, news = {str(i): f"old {i}" for i in old}, {str(i): f"new {i}" for i in range(new)}
        assert found in (olds, news)
        assert (sparse / "mine").is_file() and [path.name for path in sparse.parent.iterdir()] == ["sparse"]
        if replaced:
            assert found == news
            return
    raise AssertionError("the replacement did not end")


def replace_and_kill(sparse: Path, old: tuple[int, ...], new: int, calls: int) -> bool:
    """Replace old models by new ones; after some calls that change files, be killed. Returns whether it was not."""
    models = [draft_folder(sparse) / str(i) for i in range(new)]
    for kind, folders in {"old": [sparse / str(i) for i in old], "new": models}.items():
        for folder in folders:
            folder.mkdir(parents=True)
            (folder / "of").write_text(f"{kind} {folder.name}")
    sparse.mkdir(exist_ok=True)
    (sparse / "mine").touch()
    left = [calls]

    def dying(call: Callable[..., Any]) -> Callable[..., Any]:
        def die_or_call(*arguments: Any, **options: Any) -> Any:
            if left[0] <= 0:  # dead: nothing that runs afterwards has an effect
                raise Killed
            left[0] -= 1
            return call(*arguments, **options)

        return die_or_call

    with pytest.MonkeyPatch.context() as patch:
        for name in "rename", "mkdir", "rmdir":
            patch.setattr(Path, name, dying(getattr(Path, name)))
        try:
            replace_models(models, sparse)
        except Killed:
            return False
    return True


def test_a_run_after_a_kill_in_a_replacement_starts_with_complete_models(tmp_path: Path) -> None:
    source = synthetic(tmp_path, 3)
    source.matches = {}
    fill(tmp_path, source)
    sparse = write_old_models(tmp_path)
    (sparse / "0").rename(tmp_path / "0")
    for folder in "old", "new":
        (draft_folder(sparse) / folder).mkdir(parents=True)
    (tmp_path / "0").rename(draft_folder(sparse) / "old" / "0")
    (draft_folder(sparse) / "new" / "0").mkdir()
    (draft_folder(sparse) / "new" / "0" / "notes.txt").write_text("new")
    assert run(tmp_path).older_models
    assert sorted(p.name for p in sparse.iterdir()) == ["0", "mine"]
    assert (sparse / "0" / "notes.txt").read_text() == "new" and not draft_folder(sparse).exists()


def test_an_unwritable_model_folder_is_reported(tmp_path: Path) -> None:
    fill(tmp_path, synthetic(tmp_path, 3))
    (tmp_path / "sparse").write_text("a file")
    with pytest.raises(ReconstructionError, match=r"cannot write .*sparse"):
        run(tmp_path)
    assert (tmp_path / "sparse").read_text() == "a file"
