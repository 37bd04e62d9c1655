"""`lgbatch doctor`: states of models, unavailable devices, conflicting packages."""

import json
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest
from typer.testing import CliRunner

from lgbatch.cli import doctor
from lgbatch.cli import main as cli
from lgbatch.config import Settings
from lgbatch.export.extractors import EXTRACTORS
from lgbatch.export.weights.catalog import WEIGHTS
from lgbatch.kernels.library import ISA_VARIABLE, NO_KERNELS, available_isas
from lgbatch.runtime.cuda import gpus
from lgbatch.runtime.devices import PROVIDERS, unavailable_reason
from lgbatch.runtime.environment import available_cores
from lgbatch.runtime.packages import installation
from lgbatch.runtime.precision import extractor_kind
from lgbatch.runtime.registry import model_path

FAKE_GPU = """
import sys
from lgbatch.runtime import cuda
cuda.gpus = lambda: ("a GPU",)
from lgbatch.cli.main import main
sys.argv[1:] = ["doctor", "--json", "--precision", "fp32", "--models", sys.argv[1]]
main()
"""

EXTRACTOR = Settings().extractor
CPU = ("--device", "cpu", "--precision", "fp32")
"""Options with which an installation without the kernels has no problem."""


def run_doctor(*options: str) -> tuple[int, dict[str, object]]:
    """Exit status and JSON."""
    result = CliRunner().invoke(cli.app, ["doctor", "--json", *options])
    return result.exit_code, json.loads(result.stdout)


@pytest.mark.weights
def test_doctor_finds_no_problem_with_good_models(models: Path) -> None:
    status, values = run_doctor(*CPU, "--models", str(models))
    assert status == 0 and values["problems"] == []
    assert values["cores"] == available_cores() and values["precision"] == "fp32"
    assert values["models"] == {f"{EXTRACTOR} extractor": "good", f"{EXTRACTOR} LightGlue": "good"}
    assert {"lgbatch", "python", "pycolmap", "h5py", "torch"} <= values["versions"].keys()
    hashes = {name: WEIGHTS[file].sha256 for name, file in EXTRACTORS[EXTRACTOR].items()}
    assert values["weights"] == {
        f"{EXTRACTOR} extractor": hashes["extractor"],
        f"{EXTRACTOR} LightGlue": hashes["matcher"],
    }
    assert set(values["devices"]) == set(PROVIDERS) and values["devices"]["cpu"] is None
    text = CliRunner().invoke(cli.app, ["doctor", "--device", "cpu", "--models", str(models)]).stdout
    assert "problem     none" in text and f"{EXTRACTOR} extractor: good" in text


@pytest.mark.weights
@pytest.mark.parametrize("isa", [NO_KERNELS, *available_isas()[:1]])
def test_a_damaged_model_is_a_problem_and_a_missing_one_is_not(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, isa: str
) -> None:
    monkeypatch.setenv(ISA_VARIABLE, isa)
    status, values = run_doctor(*CPU, "--models", str(tmp_path / "none"))
    assert (status, values["models"]) == (
        0,
        {f"{EXTRACTOR} extractor": "not made yet", f"{EXTRACTOR} LightGlue": "not made yet"},
    )
    model = model_path(models, EXTRACTOR, extractor_kind(Settings(extractor=EXTRACTOR, device="cpu")))
    (tmp_path / model.name).write_bytes(model.read_bytes()[:1000])
    status, values = run_doctor(*CPU, "--models", str(tmp_path))
    assert status == 1 and len(values["problems"]) == 1
    assert "cannot be opened" in str(values["problems"]) and f"lgbatch export {EXTRACTOR}" in str(values["problems"])


def test_an_unavailable_device_is_a_problem(tmp_path: Path) -> None:
    status, values = run_doctor("--device", "cuda", "--models", str(tmp_path))
    if values["gpus"]:
        pytest.skip("there is a GPU")
    assert status == 1 and "--device cuda" in str(values["problems"])


def test_conflicting_runtimes_and_a_missing_pycolmap_are_problems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "runtime_conflict", lambda: "two runtimes")
    monkeypatch.setattr(doctor, "pycolmap_problem", lambda: "no pycolmap")
    status, values = run_doctor(*CPU, "--models", str(tmp_path))
    assert (status, values["problems"], values["pycolmap_cuda"]) == (1, ["two runtimes", "no pycolmap"], None)
    text = CliRunner().invoke(cli.app, ["doctor", "--device", "cpu", "--models", str(tmp_path)]).stdout
    assert "COLMAP      not available" in text and "problem     no pycolmap" in text


def test_the_command_that_installs_lgbatch_on_this_machine_is_shown(tmp_path: Path) -> None:
    kind, command = installation(gpu=bool(gpus()))
    text = CliRunner().invoke(cli.app, ["doctor", "--device", "cpu", "--models", str(tmp_path)]).stdout
    assert f"install     {kind}: {command}\n" in text


@pytest.mark.skipif(bool(gpus()) or not unavailable_reason("cuda"), reason="there is a GPU")
def test_a_gpu_without_the_cuda_libraries_is_a_problem(tmp_path: Path) -> None:
    """With the CUDA build of ONNX Runtime and the list of a GPU that is not there."""
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has no CUDA provider")
    done = subprocess.run([sys.executable, "-c", FAKE_GPU, str(tmp_path)], capture_output=True, text=True)
    values = json.loads(done.stdout)
    assert (done.returncode, done.stderr, values["device"], values["gpus"]) == (1, "", "cpu", ["a GPU"])
    assert values["problems"] == [
        "the GPU is not used: CUDAExecutionProvider did not start: install the CUDA libraries, for instance with "
        "`pip install 'lgbatch[cuda]'`"
    ]
