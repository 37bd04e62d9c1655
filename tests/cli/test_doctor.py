"""`lgbatch doctor`: states of models, unavailable devices, conflicting packages."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lgbatch.cli import main as cli
from lgbatch.cli.doctor import conflicting_runtimes
from lgbatch.export.extractors import EXTRACTORS
from lgbatch.export.weights.catalog import WEIGHTS
from lgbatch.runtime.devices import PROVIDERS
from lgbatch.runtime.environment import available_cores
from lgbatch.runtime.registry import model_path


def run_doctor(*options: str) -> tuple[int, dict[str, object]]:
    """Exit status and JSON."""
    result = CliRunner().invoke(cli.app, ["doctor", "--json", *options])
    return result.exit_code, json.loads(result.stdout)


@pytest.mark.weights
def test_doctor_finds_no_problem_with_good_models(models: Path) -> None:
    status, values = run_doctor("--device", "cpu", "--precision", "fp32", "--models", str(models))
    assert status == 0 and values["problems"] == []
    assert values["cores"] == available_cores() and values["precision"] == "fp32"
    assert values["models"] == {"disk extractor": "good", "disk LightGlue": "good"}
    assert {"lgbatch", "python", "pycolmap", "h5py", "torch"} <= values["versions"].keys()
    hashes = {name: WEIGHTS[file].sha256 for name, file in EXTRACTORS["disk"].items()}
    assert values["weights"] == {"disk extractor": hashes["extractor"], "disk LightGlue": hashes["matcher"]}
    assert set(values["devices"]) == set(PROVIDERS) and values["devices"]["cpu"] is None
    text = CliRunner().invoke(cli.app, ["doctor", "--device", "cpu", "--models", str(models)]).stdout
    assert "problem     none" in text and "disk extractor: good" in text


@pytest.mark.weights
def test_a_damaged_model_is_a_problem_and_a_missing_one_is_not(models: Path, tmp_path: Path) -> None:
    status, values = run_doctor("--device", "cpu", "--models", str(tmp_path / "none"))
    assert (status, values["models"]) == (0, {"disk extractor": "not made yet", "disk LightGlue": "not made yet"})
    model = model_path(models, "disk", "extractor")
    (tmp_path / model.name).write_bytes(model.read_bytes()[:1000])
    status, values = run_doctor("--device", "cpu", "--models", str(tmp_path))
    assert status == 1 and len(values["problems"]) == 1
    assert "cannot be opened" in str(values["problems"]) and "lgbatch export disk" in str(values["problems"])


def test_an_unavailable_device_is_a_problem(tmp_path: Path) -> None:
    status, values = run_doctor("--device", "cuda", "--models", str(tmp_path))
    if values["gpus"]:
        pytest.skip("there is a GPU")
    assert status == 1 and "--device cuda" in str(values["problems"])


def test_two_onnx_runtimes_are_a_problem() -> None:
    assert conflicting_runtimes({"onnxruntime": "1.31.1"}) is None
    line = conflicting_runtimes({"onnxruntime": "1.30.0", "onnxruntime-gpu": "1.31.1"})
    assert line and "onnxruntime 1.30.0 and onnxruntime-gpu 1.31.1 are installed" in line
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in line
