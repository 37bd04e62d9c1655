"""Sessions on devices other than the CPU, their fallback to the CPU, and the options of providers."""

import warnings
from pathlib import Path

import numpy as np
import pytest

from lgbatch.config import Settings
from lgbatch.export.models import ensure_models
from lgbatch.features.network import Extractor
from lgbatch.runtime import devices, session
from lgbatch.runtime.cuda import gpus
from lgbatch.runtime.devices import Device, unavailable_reason
from lgbatch.runtime.models import open_extractor, open_stages
from lgbatch.runtime.precision import extractor_kind
from lgbatch.runtime.providers import provider_options
from lgbatch.runtime.registry import model_path
from lgbatch.runtime.session import OnnxSession
from lgbatch.types import Photo


@pytest.mark.weights
@pytest.mark.skipif(bool(gpus()), reason="there is a GPU")
@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_a_missing_gpu_is_reported_in_one_line(models: Path, device: str, capfd: pytest.CaptureFixture[str]) -> None:
    settings = Settings.load(device=device, precision="fp32")
    assert open_extractor(models, settings).device == open_stages(models, settings).device == "cpu"
    line = capfd.readouterr().err
    assert line.startswith(f"lgbatch: --device {device}: ") and line.endswith("; using the CPU\n")
    assert line.count("\n") == 1


@pytest.mark.weights
@pytest.mark.skipif(bool(gpus()), reason="CUDA can start")
def test_a_session_falls_back_to_the_cpu_if_the_provider_fails(models: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Requests CUDA although it cannot start: there is no GPU, or ONNX Runtime was built without CUDA."""
    path = model_path(models, "disk", "extractor")
    on_cpu = OnnxSession(path, "cuda", threads=1)
    assert on_cpu.device == "cpu"
    image = np.random.default_rng(0).random((1, 3, 64, 96), np.float32)
    assert on_cpu.run({"image": image, "max_keypoints": np.array(5)})[0].shape == (1, 5, 2)
    line = capfd.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("lgbatch: --device cuda: CUDAExecutionProvider did not start: ")
    assert line.endswith("; using the CPU")


@pytest.mark.weights
@pytest.mark.skipif(bool(gpus()), reason="CUDA can start")
def test_a_gpu_without_cuda_libraries_is_reported_once(
    models: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its provider is tried once, not once per stage: each try costs time and prints lines of its own."""
    monkeypatch.setattr(devices, "_missing_part", lambda device: None)
    opened = OnnxSession._open_on_device
    tried: list[Path] = []
    monkeypatch.setattr(
        OnnxSession, "_open_on_device", lambda self, path, *rest: tried.append(path) or opened(self, path, *rest)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an ONNX Runtime that has no CUDA at all
        stages = open_stages(models, Settings.load(device="cuda", precision="fp32"))
        extractor = open_extractor(models, Settings.load(device="cuda"))
    assert (stages.device, stages.precision, extractor.device) == ("cpu", "fp32", "cpu")
    line = capfd.readouterr().err
    assert line.count("\n") == 1 and "did not start: install the CUDA libraries" in line and len(tried) == 1


@pytest.mark.weights
@pytest.mark.skipif(bool(gpus()), reason="CUDA can start")
def test_an_extractor_that_falls_back_to_the_cpu_has_the_threads_of_the_cpu(
    models: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(devices, "_missing_part", lambda device: None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an ONNX Runtime that has no CUDA at all
        extractor = Extractor(models, Settings.load(device="cuda", threads=3), at_once=3)
    opened = extractor.model.session
    assert isinstance(opened, OnnxSession)
    threads = opened._session.get_session_options().intra_op_num_threads
    assert (opened.device, threads, extractor.at_once) == ("cpu", 1, 3)
    assert capfd.readouterr().err.count("did not start") == 1


@pytest.mark.weights
def test_a_model_that_a_device_rejects_leaves_the_device_to_the_others(
    models: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def reject(path: str, *arguments: object, **options: object) -> object:
        raise RuntimeError("no kernel for GridSample")

    monkeypatch.setattr(session.ort, "InferenceSession", reject)
    path = model_path(models, "disk", "extractor")
    with pytest.raises(RuntimeError, match="no kernel"):  # on the CPU too, in this test
        OnnxSession(path, "openvino", threads=1)
    assert not devices.has_failed("openvino") and capfd.readouterr().err == ""


def test_cuda_computes_fp32_in_fp32_and_searches_no_algorithms(tmp_path: Path) -> None:
    names: tuple[Device, ...] = ("cuda", "tensorrt")
    for device in names:
        options = dict(provider_options(device, tmp_path / "disk.onnx", threads=2, max_side=0, device_id=3))
        assert options["CUDAExecutionProvider"] == {
            "device_id": "3",
            "use_tf32": "0",
            "cudnn_conv_algo_search": "HEURISTIC",
        }


def test_a_damaged_file_is_not_blamed_on_the_device(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cut.onnx").write_bytes(b"no model")
    with pytest.raises(Exception, match=r"INVALID_PROTOBUF|Protobuf"):
        OnnxSession(tmp_path / "cut.onnx", "cuda", threads=1)
    assert "cannot run there" not in capfd.readouterr().err


def test_tensorrt_has_a_profile_of_batch_shapes_and_caches_its_engines(tmp_path: Path) -> None:
    (name, options), *fallbacks = provider_options("tensorrt", tmp_path / "disk.onnx", threads=2, max_side=1600)
    assert name == "TensorrtExecutionProvider"
    assert [name for name, _ in fallbacks] == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert options["trt_engine_cache_path"] == str(tmp_path / "tensorrt") and options["trt_engine_cache_enable"]
    shapes = [options[f"trt_profile_{bound}_shapes"] for bound in ("min", "opt", "max")]
    assert shapes == ["image:1x3x32x32", "image:8x3x768x1024", "image:8x3x1600x1600"]
    ((_, small), *_) = provider_options("tensorrt", tmp_path / "disk.onnx", threads=2, max_side=20)
    assert small["trt_profile_min_shapes"] == "image:1x3x20x20" and small["trt_profile_opt_shapes"] == "image:8x3x20x20"
    ((_, unknown), *_) = provider_options("tensorrt", tmp_path / "disk.onnx", threads=2, max_side=0)
    assert not [key for key in unknown if "profile" in key]


@pytest.mark.weights
def test_an_extractor_with_wrong_keypoints_on_a_device_runs_on_the_cpu(
    models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lgbatch.runtime.devices.choose_device", lambda requested: "openvino")
    settings = Settings(extractor="aliked-n16")
    ensure_models(models, "aliked-n16", [extractor_kind(settings)])
    assert open_extractor(models, settings).device == "cpu"
    assert "aliked-n16 cannot run there (its keypoints would be wrong)" in capsys.readouterr().err


@pytest.mark.weights
@pytest.mark.skipif(unavailable_reason("openvino") is not None, reason="ONNX Runtime was built without OpenVINO")
def test_openvino_detects_the_same_keypoints(models: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    photo = Photo("a", pixels, (320, 240))
    cpu, openvino = (Extractor(models, Settings.load(device=name, max_keypoints=200)) for name in ("cpu", "openvino"))
    assert openvino.model.device == "openvino"
    expected, actual = ({(*point,) for point in one.extract([photo])[0].keypoints} for one in (cpu, openvino))
    assert len(expected & actual) >= 0.99 * len(expected)
