"""Replacement of the models of an earlier run in sparse/."""

from pathlib import Path

import pytest

from lgbatch.errors import ReconstructionError
from lgbatch.reconstruction.advice import advice
from lgbatch.reconstruction.model_folders import replace_models
from tests.helpers.synthetic import synthetic
from tests.reconstruction.helpers import fill, run, write_old_models


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
    assert "no two images match" in advice(result)
    assert result.older_models and "models in sparse/ are from an earlier run" in advice(result)
    assert sorted(p.name for p in sparse.iterdir()) == ["0", "7", "mine"]
    assert [p.name for p in tmp_path.glob("sparse*")] == ["sparse"]


def test_a_failed_replacement_is_undone(tmp_path: Path) -> None:
    sparse = write_old_models(tmp_path)
    (tmp_path / "new").mkdir()
    with pytest.raises(OSError, match="missing"):
        replace_models([tmp_path / "new", tmp_path / "missing"], sparse, tmp_path / "old")
    assert (sparse / "0" / "notes.txt").read_text() == "0"
    assert sorted(p.name for p in sparse.iterdir()) == ["0", "7", "mine"]


def test_an_unwritable_model_folder_is_reported(tmp_path: Path) -> None:
    fill(tmp_path, synthetic(tmp_path, 3))
    (tmp_path / "sparse").write_text("a file")
    with pytest.raises(ReconstructionError, match=r"cannot write .*sparse"):
        run(tmp_path)
    assert (tmp_path / "sparse").read_text() == "a file"
