"""What `lgbatch doctor` says of a machine."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lgbatch.cli import main as cli
from lgbatch.cli.doctor import side_by_side
from lgbatch.export.models import EXTRACTORS
from lgbatch.export.weights.catalog import WEIGHTS
from lgbatch.runtime.devices import PROVIDERS
from lgbatch.runtime.environment import available_cores
from lgbatch.runtime.registry import model_path


def told(*options: str) -> tuple[int, dict[str, object]]:
    result = CliRunner().invoke(cli.app, ["doctor", "--json", *options])
    return result.exit_code, json.loads(result.stdout)


@pytest.mark.weights
def test_a_sound_machine_has_no_problems(models: Path) -> None:
    status, found = told("--device", "cpu", "--precision", "fp32", "--models", str(models))
    assert status == 0 and found["problems"] == []
    assert found["cores"] == available_cores() and found["precision"] == "fp32"
    assert found["models"] == {"disk extractor": "good", "disk LightGlue": "good"}
    assert {"lgbatch", "python", "pycolmap", "h5py", "torch"} <= found["versions"].keys()
    weights = {name: WEIGHTS[file].sha256 for name, file in EXTRACTORS["disk"].items()}
    assert found["weights"] == {"disk extractor": weights["extractor"], "disk LightGlue": weights["matcher"]}
    assert set(found["devices"]) == set(PROVIDERS) and found["devices"]["cpu"] is None
    words = CliRunner().invoke(cli.app, ["doctor", "--device", "cpu", "--models", str(models)]).stdout
    assert "problem     none" in words and "disk extractor: good" in words


@pytest.mark.weights
def test_a_damaged_model_is_a_problem_and_a_missing_one_is_not(models: Path, tmp_path: Path) -> None:
    status, found = told("--device", "cpu", "--models", str(tmp_path / "none"))
    assert (status, found["models"]) == (0, {"disk extractor": "not made yet", "disk LightGlue": "not made yet"})
    model = model_path(models, "disk", "extractor")
    (tmp_path / model.name).write_bytes(model.read_bytes()[:1000])
    status, found = told("--device", "cpu", "--models", str(tmp_path))
    assert status == 1 and len(found["problems"]) == 1
    assert "cannot be opened" in str(found["problems"]) and "lgbatch export disk" in str(found["problems"])


def test_a_device_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    status, found = told("--device", "cuda", "--models", str(tmp_path))
    if found["gpus"]:
        pytest.skip("there is one")
    assert status == 1 and "--device cuda" in str(found["problems"])


def test_two_packages_of_one_name_are_told() -> None:
    assert side_by_side({"onnxruntime": "1.31.1"}) is None
    line = side_by_side({"onnxruntime": "1.30.0", "onnxruntime-gpu": "1.31.1"})
    assert line and "onnxruntime 1.30.0 and onnxruntime-gpu 1.31.1 are installed" in line
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in line
