"""Where models run, and what is said where they cannot."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lgbatch.config import Settings
from lgbatch.errors import ModelError
from lgbatch.export.models import ensure_models
from lgbatch.features.network import Extractor
from lgbatch.runtime import devices
from lgbatch.runtime.cuda import free_memory, gpus
from lgbatch.runtime.devices import PROVIDERS, choose, find, for_matching, unavailable_reason
from lgbatch.runtime.models import open_extractor, open_stages
from lgbatch.runtime.precision import matching_precision, stages_kind
from lgbatch.runtime.providers import provider_options
from lgbatch.runtime.registry import model_path
from lgbatch.runtime.session import OnnxSession
from lgbatch.types import Photo


@pytest.fixture(autouse=True)
def told_anew() -> None:
    devices._say.cache_clear()


@pytest.mark.weights
@pytest.mark.skipif(bool(gpus()), reason="there is a GPU")
@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_a_gpu_that_is_not_there_is_said_in_one_line(
    models: Path, device: str, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = Settings.load(device=device, precision="fp32")
    assert open_extractor(models, settings).device == open_stages(models, settings).device == "cpu"
    line = capfd.readouterr().err
    assert line.startswith(f"lgbatch: --device {device}: ") and line.endswith("; using the CPU\n")
    assert line.count("\n") == 1


def test_what_is_lacking_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    unavailable_reason.cache_clear()
    try:
        for device, provider in PROVIDERS.items():
            lacking = unavailable_reason(device)
            assert (lacking is None) == (device == "cpu")
            assert lacking is None or (provider.name in lacking and provider.source in lacking)
        assert find("auto") == ("cpu", None)
    finally:
        unavailable_reason.cache_clear()


def test_without_tensorrt_cuda_is_taken(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(devices, "unavailable_reason", lambda device: "no library" if device == "tensorrt" else None)
    assert choose("auto") == "cuda" and choose("tensorrt") == choose("tensorrt") == "cuda"
    assert capsys.readouterr().err == "lgbatch: --device tensorrt: no library; using cuda\n"
    assert [for_matching(device) for device in PROVIDERS] == ["cpu", "cuda", "cuda", "cpu", "cpu", "cpu"]


@pytest.mark.weights
def test_a_provider_that_fails_leaves_the_model_to_the_cpu(models: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """CUDA is asked for where it cannot start: without a GPU, or in an ONNX Runtime that does not have it."""
    if gpus():
        pytest.skip("it can")
    path = model_path(models, "disk", "extractor")
    session = OnnxSession(path, "cuda", threads=1)
    assert session.device == "cpu"
    image = np.random.default_rng(0).random((1, 3, 64, 96), np.float32)
    assert session.run({"image": image, "max_keypoints": np.array(5)})[0].shape == (1, 5, 2)
    line = capfd.readouterr().err.strip().splitlines()[-1]
    assert line.startswith(f"lgbatch: --device cuda: {path.name} does not run there (")
    assert line.endswith("); using the CPU for it")


def test_what_matching_computes_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def precision(device: str, precision: str = "auto", extractor: str = "disk") -> str:
        return matching_precision(Settings.load(device=device, precision=precision, extractor=extractor))

    with pytest.raises(ModelError, match="--precision fp16 is for a GPU: use --device cuda where there is one, or lea"):
        precision("cpu", "fp16")
    monkeypatch.setattr(devices, "unavailable_reason", lambda device: None)
    assert [precision("cuda"), precision("auto"), precision("cuda", "fp16")] == ["fp16"] * 3
    assert precision("cuda", "fp32") == precision("cuda", extractor="xfeat") == "fp32"
    assert precision("cpu") in ("fp32", "int8")
    with pytest.raises(ModelError, match="runs in fp32 alone"):
        precision("cuda", "fp16", "xfeat")
    with pytest.raises(ModelError, match="--precision int8 is for the CPU"):
        precision("cuda", "int8")


@pytest.mark.weights
@pytest.mark.skipif(bool(gpus()), reason="it can start")
def test_where_cuda_does_not_start_the_cpu_takes_what_it_is_best_in(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "unavailable_reason", lambda device: None)
    assert stages_kind(Settings()) == "stages-fp16"
    best = matching_precision(Settings(device="cpu"))
    found = {wanted: open_stages(models, Settings.load(precision=wanted)) for wanted in ("auto", "fp32")}
    assert {wanted: stages.precision for wanted, stages in found.items()} == {"auto": best, "fp32": "fp32"}
    assert {stages.device for stages in found.values()} == {"cpu"}


class Driver:
    """Stands in for CUDA's driver, with as many GPUs as it has numbers: (free, total) bytes."""

    def __init__(self, *memory: tuple[int, int], broken: str = "") -> None:
        self.memory, self.broken, self.current, self.held = memory, broken, -1, 0

    def __getattr__(self, name: str) -> Callable[..., int]:
        return lambda *given: 100 if name == self.broken else self.call(name, *given) or 0

    def call(self, name: str, *given: Any) -> int | None:
        if name == "cuDeviceGetCount":
            given[0]._obj.value = len(self.memory)
        elif name == "cuDeviceGet":
            if given[1] >= len(self.memory):
                return 101
            given[0]._obj.value = given[1]
        elif name == "cuDeviceGetName":
            given[0].value = f"GPU {given[2].value}".encode()
        elif name == "cuDevicePrimaryCtxRetain":
            self.held += 1
            given[0]._obj.value = given[1].value + 1
        elif name == "cuDevicePrimaryCtxRelease_v2":
            self.held -= 1
        elif name == "cuCtxPushCurrent_v2":
            self.current = given[0].value - 1
        elif name == "cuCtxPopCurrent_v2":
            self.current = -1
        elif name == "cuMemGetInfo_v2":
            given[0]._obj.value, given[1]._obj.value = self.memory[self.current]
        else:
            assert name == "cuInit"
        return None


def test_the_free_memory_is_that_of_the_gpu_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver((5 << 30, 8 << 30), (70 << 30, 80 << 30))
    monkeypatch.setattr(devices.ctypes, "CDLL", lambda name: driver)
    assert [free_memory(number) for number in range(3)] == [5 << 30, 70 << 30, 0]
    gpus.cache_clear()
    try:
        assert gpus() == ("GPU 0", "GPU 1")
    finally:
        gpus.cache_clear()
    assert (driver.current, driver.held) == (-1, 0)
    for broken in "cuInit", "cuDevicePrimaryCtxRetain", "cuCtxPushCurrent_v2", "cuMemGetInfo_v2":
        driver.broken = broken
        assert free_memory(0) == 0
        assert driver.held == 0


def test_a_damaged_file_is_no_fault_of_the_device(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cut.onnx").write_bytes(b"no model")
    with pytest.raises(Exception, match=r"INVALID_PROTOBUF|Protobuf"):
        OnnxSession(tmp_path / "cut.onnx", "cuda", threads=1)
    assert "does not run there" not in capfd.readouterr().err


def test_tensorrt_is_told_how_large_photos_become_and_keeps_its_engines(tmp_path: Path) -> None:
    (name, options), *others = provider_options("tensorrt", tmp_path / "disk.onnx", threads=2, side=1600)
    assert name == "TensorrtExecutionProvider"
    assert [name for name, _ in others] == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert options["trt_engine_cache_path"] == str(tmp_path / "tensorrt") and options["trt_engine_cache_enable"]
    shapes = [options[f"trt_profile_{end}_shapes"] for end in ("min", "opt", "max")]
    assert shapes == ["image:1x3x32x32", "image:8x3x768x1024", "image:8x3x1600x1600"]
    ((_, small), *_) = provider_options("tensorrt", tmp_path / "disk.onnx", threads=2, side=20)
    assert small["trt_profile_min_shapes"] == "image:1x3x20x20" and small["trt_profile_opt_shapes"] == "image:8x3x20x20"
    ((_, unknown), *_) = provider_options("tensorrt", tmp_path / "disk.onnx", threads=2, side=0)
    assert not [key for key in unknown if "profile" in key]


@pytest.mark.weights
def test_a_device_that_is_wrong_for_an_extractor_is_not_used(
    models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lgbatch.runtime.models.choose", lambda device: "openvino")
    ensure_models(models, "aliked-n16", ["extractor"])
    assert open_extractor(models, Settings(extractor="aliked-n16")).device == "cpu"
    assert (
        f"{model_path(models, 'aliked-n16', 'extractor').name} does not run there (its keypoints would come out wrong)"
        in capsys.readouterr().err
    )


@pytest.mark.weights
@pytest.mark.skipif(unavailable_reason("openvino") is not None, reason="ONNX Runtime was built without OpenVINO")
def test_openvino_finds_the_same_keypoints(models: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    photo = Photo("a", pixels, (320, 240))
    found = [Extractor(models, Settings.load(device=device, max_keypoints=200)) for device in ("cpu", "openvino")]
    assert found[1].model.device == "openvino"
    ours, theirs = ({(*point,) for point in one.extract([photo])[0].keypoints} for one in found)
    assert len(ours & theirs) >= 0.99 * len(ours)
