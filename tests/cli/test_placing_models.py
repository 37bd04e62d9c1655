"""The commands georeference, triangulate and localize: their output, exit status and errors."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from lgbatch.cli import main as cli
from lgbatch.storage.features import FeatureStore
from tests.reconstruction.georeference.helpers import synthetic_model, write_positions
from tests.reconstruction.known_poses.helpers import known_scene


def invoke(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli.app, [*map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def test_georeference(tmp_path: Path) -> None:
    write_positions(tmp_path / "positions.txt", synthetic_model(tmp_path), scale=40.0)
    status, text, _ = invoke("georeference", tmp_path, "--positions", tmp_path / "positions.txt")
    assert status == 0 and "10 images, 10 photos with positions, 40 metres a unit" in text
    status, text, _ = invoke("georeference", tmp_path, "--positions", tmp_path / "positions.txt", "--json")
    assert json.loads(text)["models"][0]["scale"] == pytest.approx(40)
    status, _, error = invoke("georeference", tmp_path, "--gcp", "gcp_list.txt", "--position-priors")
    assert status == 2 and "--position-priors has no effect with --gcp" in error
    status, _, error = invoke("georeference", tmp_path)
    assert status == 2 and "is unknown: give it with --images, or use --positions" in error and error.count("\n") == 1


def test_triangulate(tmp_path: Path) -> None:
    known_scene(tmp_path)
    with FeatureStore(tmp_path / "features.h5", append={}) as features:
        features.set_image_folder(tmp_path / "images")
        features.commit()
    status, text, _ = invoke("triangulate", tmp_path, "--poses", tmp_path / "truth", "--json")
    assert status == 0 and np.isclose(json.loads(text)["confirmed"], json.loads(text)["matches"], rtol=0.05)
    status, text, _ = invoke("triangulate", tmp_path, "--poses", tmp_path / "truth")
    assert "COLMAP model, of 6 of 6 images; intrinsics known of 6 images" in text
    status, _, error = invoke("triangulate", tmp_path, "--poses", tmp_path / "nothing")
    assert status == 2 and "there is no" in error and error.count("\n") == 1


def test_localize(tmp_path: Path) -> None:
    known_scene(tmp_path)
    status, _, error = invoke("localize", tmp_path, tmp_path / "images", "--model", tmp_path / "truth")
    assert status == 2 and "give a workspace with the features of the model's photos" in error
    status, _, error = invoke("localize", tmp_path, tmp_path / "images")
    assert status == 2 and "no COLMAP model in" in error and error.count("\n") == 1
