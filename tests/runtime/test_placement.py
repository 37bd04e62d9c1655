"""Where the nodes of models run: on the CPU, and with ONNX Runtime's CUDA provider on libraries without a GPU."""

import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from lgbatch.runtime.cuda import gpus
from lgbatch.runtime.placement import describe, placement
from lgbatch.runtime.registry import model_path
from tests.helpers import cuda_stand_in

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
SHAPE_ARITHMETIC = {
    *("Add", "Cast", "Concat", "Div", "Gather", "Greater", "Max", "Min", "Mod", "Mul", "Neg", "Reshape", "Squeeze"),
    *("Sub", "Unsqueeze"),
}
"""Operators on a few numbers, which ONNX Runtime keeps on the CPU to have the shapes of tensors there."""
MATCH = """
import sys
from pathlib import Path
import numpy as np
from lgbatch.config import Settings
from lgbatch.matching.lightglue import Matcher
from lgbatch.types import Features

matcher = Matcher(Path(sys.argv[1]), Settings(extractor="disk", device="cuda"))
assert (matcher.stages.device, matcher.stages.precision) == ("cuda", "fp16") and matcher.stages.memory > 1e9
random = np.random.default_rng(0)
images = []
for count in (300, 200, 250, 200):
    keypoints = random.uniform(0, 640, (count, 2)).astype(np.float32)
    descriptors = random.normal(size=(count, 128)).astype(np.float32)
    images.append(matcher.encode(Features(keypoints, keypoints[:, 0], descriptors, (640, 480))))
assert images[0].batch.x.device_name() == "cuda" and images[0].batch.x.element_type() == 10
backend = matcher._backend
images = backend.join(images)
feed = {"threshold": np.array(0.1, np.float32)}
for side, chosen in enumerate((images[:2], [images[2].keep(np.arange(250) < 100), images[0]])):
    feed[f"lengths{side}"] = np.array([len(image) for image in chosen])
    feed |= {f"{name}{side}": value for name, value in backend.pad(chosen, ("x", "cosines", "sines")).items()}
y0, y1, *decisions = backend.run("layer1", feed)
matches, scores = backend.run("head1", feed | {"x0": y0, "x1": y1})
print(y0.shape(), y0.device_name(), y0.element_type(), [value.shape for value in (*decisions, matches)])
matcher.stages.shrink()
"""
COPIES = """
import sys
import onnx, onnxruntime
for path in sys.argv[2:]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.optimized_model_filepath = 4, sys.argv[1]
    onnxruntime.InferenceSession(path, options, providers=["CUDAExecutionProvider", "CPUExecutionProvider"])
    print(sum("Memcpy" in node.op_type for node in onnx.load(sys.argv[1]).graph.node))
"""


@pytest.mark.weights
def test_all_nodes_are_counted(models: Path) -> None:
    paths = [model_path(models, "disk", "stages") / f"{stage}.onnx" for stage in ("layer1", "head1", "pack")]
    found = placement(paths, "cpu")
    assert found.keys() == {CPU} and found[CPU]["Attention"] == 4
    assert sum(found[CPU].values()) == sum(len(onnx.load(path).graph.node) for path in paths)
    assert describe(found) == f"{sum(found[CPU].values())} nodes on {CPU}"
    assert (
        describe({CPU: {"Squeeze": 2}, CUDA: {"Add": 3, "Gelu": 1}})
        == f"4 nodes on {CUDA}, 2 nodes on {CPU} (2 Squeeze)"
    )


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process in which CUDA starts without a GPU."""
    if reason := "there is a GPU" if gpus() else cuda_stand_in.missing_part():
        pytest.skip(reason)
    return cuda_stand_in.build(tmp_path_factory.mktemp("cuda"))


def output(environment: dict[str, str], *arguments: object) -> str:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


@pytest.mark.weights
def test_cuda_takes_all_nodes_but_the_arithmetic_of_shapes(stand_in: dict[str, str], models: Path) -> None:
    command = ["-m", "lgbatch", "doctor", "--extractor", "disk", "--models", models]
    values = json.loads(output(stand_in, *command, "--json"))
    assert values["gpus"] == ["stand-in"] and (values["device"], values["precision"]) == ("cuda", "fp16")
    lightglue, network = (values["placement"][f"disk {name}"] for name in ("LightGlue", "extractor"))
    assert lightglue.keys() == {CPU, CUDA} and lightglue[CPU] == {"Squeeze": 18}
    assert network[CPU].keys() <= SHAPE_ARITHMETIC and network[CUDA]["Conv"] == 10
    assert f"placement   disk LightGlue: {sum(lightglue[CUDA].values())} nodes on {CUDA}, 18 nodes on {CPU}" in output(
        stand_in, *command
    )


@pytest.mark.weights
def test_the_stages_copy_nothing_between_gpu_and_cpu(stand_in: dict[str, str], models: Path, tmp_path: Path) -> None:
    folder = model_path(models, "disk", "stages-fp16")
    paths = [folder / f"{stage}.onnx" for stage in ("stem", "layer0", "layer1", "layer8", "head8", "pack")]
    assert output(stand_in, "-c", COPIES, tmp_path / "optimized.onnx", *paths).split() == ["0"] * len(paths)


@pytest.mark.weights
def test_matching_binds_tensors_that_stay_on_the_gpu(stand_in: dict[str, str], models: Path) -> None:
    """The numbers are arbitrary, since no kernel runs: only that the CUDA provider accepts every call is tested."""
    decisions = [(2, 300), (2, 300), (2, 300), (2, 300)]
    assert output(stand_in, "-c", MATCH, models) == f"[2, 300, 256] cuda 10 {[*decisions, (2, 300)]}\n"


@pytest.mark.weights
def test_a_gpu_without_cudnn_is_reported_before_each_run_would_fail(
    stand_in: dict[str, str], models: Path, tmp_path: Path
) -> None:
    for library in Path(stand_in["LD_LIBRARY_PATH"]).glob("lib*.so*"):
        if library.name != cuda_stand_in.CUDNN:
            (tmp_path / library.name).symlink_to(library)
    command = [sys.executable, "-m", "lgbatch", "doctor", "--models", str(models), "--json"]
    environment = {**stand_in, "LD_LIBRARY_PATH": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    values = json.loads(done.stdout)
    assert (done.returncode, values["device"], values["placement"]) == (1, "cpu", {})
    assert "did not start: install the CUDA libraries" in values["problems"][0]
