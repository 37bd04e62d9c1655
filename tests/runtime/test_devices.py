"""The choice of a device, and the warnings if it is unavailable."""

from collections.abc import Iterator

import pytest

from lgbatch.runtime import devices
from lgbatch.runtime.devices import PROVIDERS, choose_device, matching_device, resolve_device, unavailable_reason


@pytest.fixture(autouse=True)
def uncached() -> Iterator[None]:
    """Clear the cached availability and warnings."""
    cached = unavailable_reason
    devices._warn.cache_clear()
    cached.cache_clear()
    yield
    cached.cache_clear()


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


def test_matching_runs_on_cuda_or_the_cpu() -> None:
    assert [matching_device(device) for device in PROVIDERS] == ["cpu", "cuda", "cuda", "cpu", "cpu", "cpu"]
