"""The precision policy, and its fallback if the GPU session cannot be created."""

from pathlib import Path

import pytest

from lgbatch.config import Settings
from lgbatch.errors import ModelError
from lgbatch.runtime import devices
from lgbatch.runtime.cuda import gpus
from lgbatch.runtime.models import open_stages
from lgbatch.runtime.precision import matching_precision, stages_kind


def test_auto_precision_and_refused_precisions(monkeypatch: pytest.MonkeyPatch) -> None:
    def precision(device: str, requested: str = "auto", extractor: str = "disk") -> str:
        return matching_precision(Settings.load(device=device, precision=requested, extractor=extractor))

    with pytest.raises(ModelError, match="--precision fp16 needs an NVIDIA GPU: use --device cuda if there is one, or"):
        precision("cpu", "fp16")
    monkeypatch.setattr(devices, "unavailable_reason", lambda device: None)
    assert [precision("cuda"), precision("auto"), precision("cuda", "fp16")] == ["fp16"] * 3
    assert precision("cuda", "fp32") == precision("cuda", extractor="xfeat") == "fp32"
    assert precision("cpu") in ("fp32", "int8")
    with pytest.raises(ModelError, match="supports fp32 only"):
        precision("cuda", "fp16", "xfeat")
    with pytest.raises(ModelError, match="--precision int8 needs the CPU"):
        precision("cuda", "int8")


@pytest.mark.weights
@pytest.mark.skipif(bool(gpus()), reason="CUDA can start")
def test_without_a_cuda_session_the_cpu_uses_its_default_precision(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "unavailable_reason", lambda device: None)
    assert stages_kind(Settings()) == "stages-fp16"
    cpu_default = matching_precision(Settings(device="cpu"))
    opened = {requested: open_stages(models, Settings.load(precision=requested)) for requested in ("auto", "fp32")}
    precisions = {requested: stages.precision for requested, stages in opened.items()}
    assert precisions == {"auto": cpu_default, "fp32": "fp32"}
    assert {stages.device for stages in opened.values()} == {"cpu"}
