"""The choice of a device, and the warnings if it is unavailable."""

import pytest

from lgbatch.errors import LgbatchError
from lgbatch.runtime import devices
from lgbatch.runtime.devices import (
    PROVIDERS,
    choose_device,
    has_failed,
    matching_device,
    provider_failed,
    resolve_device,
    stop_if_lost,
    unavailable_reason,
)


def test_unavailable_reasons_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    for device, provider in PROVIDERS.items():
        reason = unavailable_reason(device)
        assert (reason is None) == (device == "cpu")
        assert reason is None or (provider.name in reason and provider.install_hint in reason)
    assert resolve_device("auto") == ("cpu", None)


def test_tensorrt_falls_back_to_cuda_with_one_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(devices, "unavailable_reason", lambda device: "no library" if device == "tensorrt" else None)
    assert choose_device("auto") == "cuda" and choose_device("tensorrt") == choose_device("tensorrt") == "cuda"
    assert capsys.readouterr().err == "lgbatch: --device tensorrt: no library; using cuda\n"


def test_a_provider_that_does_not_start_makes_its_device_unavailable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(devices, "_missing_part", lambda device: None)
    assert choose_device("auto") == "cuda" and not has_failed("cuda")
    for _ in range(2):
        provider_failed("cuda")
    assert choose_device("auto") == choose_device("cuda") == "cpu" and has_failed("cuda")
    line = capsys.readouterr().err
    assert line.startswith("lgbatch: --device cuda: CUDAExecutionProvider did not start: install the CUDA libraries")
    assert "pip install 'lgbatch[cuda]'" in line
    assert line.endswith("; using the CPU\n") and line.count("\n") == 1


def test_a_gpu_that_is_not_used_and_conflicting_packages_are_told_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(devices.ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(devices, "runtime_conflict", lambda: "two packages")
    assert choose_device("auto") == choose_device("cpu") == "cpu"
    assert capsys.readouterr().err == "lgbatch: two packages\n"
    monkeypatch.setattr(devices, "gpus", lambda: ("a GPU",))
    assert choose_device("cpu") == "cpu" and capsys.readouterr().err == ""
    assert choose_device("auto") == choose_device("auto") == "cpu"
    assert capsys.readouterr().err == (
        "lgbatch: the GPU is not used: this ONNX Runtime has no CUDAExecutionProvider (install onnxruntime-gpu)\n"
    )


def test_the_lines_of_onnx_runtime_about_missing_libraries_are_not_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(devices.ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(devices.ort, "preload_dlls", lambda: print("Failed to load libcublas"), raising=False)
    monkeypatch.setattr(devices, "gpus", lambda: ("a GPU",))
    assert unavailable_reason("cuda") is None
    assert capsys.readouterr() == ("", "")


def test_an_error_of_a_device_that_recovers_or_of_the_cpu_does_not_stop_a_run() -> None:
    def fail() -> None:
        raise RuntimeError("CUDA failure 700")

    stop_if_lost("cuda", RuntimeError("out of memory"), lambda: None)
    stop_if_lost("cpu", RuntimeError("out of memory"), fail)
    with pytest.raises(LgbatchError, match=r"--device cuda failed and does not recover \(an illegal\s+memory access\)"):
        stop_if_lost("cuda", RuntimeError("an illegal\nmemory access"), fail)


def test_matching_runs_on_cuda_or_the_cpu() -> None:
    assert [matching_device(device) for device in PROVIDERS] == ["cpu", "cuda", "cuda", "cpu", "cpu", "cpu"]
