"""What lgbatch would run with on this machine, and what stands in its way."""

import json
import os
import platform
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lgbatch.cli.options import Json, Models, command, new_app
from lgbatch.config import Settings
from lgbatch.errors import ModelError
from lgbatch.export.models import EXTRACTORS
from lgbatch.kernels import library as kernels
from lgbatch.runtime.cuda import driver, gpus
from lgbatch.runtime.devices import PROVIDERS, find, for_matching, unavailable_reason
from lgbatch.runtime.environment import available_cores, installed, versions
from lgbatch.runtime.models import Model, Stages, open_extractor, open_stages
from lgbatch.runtime.precision import matching_precision, stages_kind
from lgbatch.runtime.registry import FP32_ONLY, Kind, default_folder, family, model_path

app = new_app()

BESIDE = ("torch", "onnx", "onnxscript", "scikit-image")
"""Packages that are looked for besides those that a summary tells."""
RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")
INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")
GOOD, NOT_MADE = "good", "not made yet"
FREE_GB = 2.0
"""Less free disk space than this is told as a problem."""


@dataclass(frozen=True)
class Diagnosis:
    """Plain values."""

    values: dict[str, Any]

    @property
    def problems(self) -> list[str]:
        """One line each: what is wrong, and what to do."""
        return list(self.values["problems"])

    def format(self) -> str:
        """A few lines."""
        v = self.values
        lines = [
            "versions    " + ", ".join(f"{name} {version}" for name, version in v["versions"].items()),
            f"machine     {v['cores']} cores, {v['memory_gb']} GB of memory"
            + (f", {' '.join(v['instructions'])}" if v["instructions"] else "")
            + f"; NVIDIA GPUs: {', '.join(v['gpus']) or 'none'}"
            + (f" (driver {v['driver']})" if v["driver"] else ""),
            f"COLMAP      pycolmap {'with' if v['pycolmap_cuda'] else 'without'} CUDA",
            *(f"--device    {name}: {lacking or 'can be used'}" for name, lacking in v["devices"].items()),
            f"extraction  fp32 on {v['device']}",
            f"matching    {v['precision']} on {v['matching_device']}: {v['reason']}"
            if v["reason"]
            else "matching    on nothing",
            f"models      {v['models_folder']}, {v['free_gb']:.1f} GB free there",
            *(
                f"            {name}: {state}"
                + (f", made from weights of sha256 {v['weights'][name]}" if name in v["weights"] else "")
                for name, state in v["models"].items()
            ),
        ]
        return "\n".join([*lines, *(f"problem     {problem}" for problem in v["problems"] or ["none"])])


def diagnose(models: Path, settings: Settings) -> Diagnosis:
    """Look at packages, processor, GPU, and the models in a folder."""
    import pycolmap

    problems = []
    found = versions() | installed(BESIDE)
    clash = side_by_side(installed(RUNTIMES))
    if clash:
        problems.append(clash)
    device, lacking = find(settings.device)
    if lacking:
        problems.append(f"--device {settings.device}: {lacking}")
    precision = reason = None
    try:
        precision, reason = matching_precision(settings), _reason(settings)
    except ModelError as error:
        problems.append(str(error))
    if gpus() and device == "cpu" and settings.device == "auto":
        problems.append(f"there is a GPU that is not used: {unavailable_reason('cuda')}")
    free = shutil.disk_usage(_existing(models)).free / 1e9
    if free < FREE_GB:
        problems.append(f"{free:.1f} GB of disk space are left at {models}: make room, or choose another with --models")
    states, opened = _models(models, settings) if reason else ({}, {})
    extractor = opened.get(f"{settings.extractor} extractor")
    problems += [f"{name}: {state}" for name, state in states.items() if state not in (GOOD, NOT_MADE)]
    return Diagnosis(
        {
            "versions": found,
            "cores": available_cores(),
            "memory_gb": _memory_gb(),
            "instructions": _instructions(),
            "gpus": list(gpus()),
            "driver": driver(),
            "pycolmap_cuda": pycolmap.has_cuda,
            "devices": {name: unavailable_reason(name) for name in PROVIDERS},
            "device": extractor.device if extractor else device,
            "matching_device": for_matching(device),
            "precision": precision,
            "reason": reason,
            "models_folder": str(models),
            "free_gb": round(free, 1),
            "models": states,
            "weights": {name: model.weights for name, model in opened.items()},
            "problems": problems,
        }
    )


def side_by_side(runtimes: Mapping[str, str]) -> str | None:
    """What to do where more than one package of ONNX Runtime is installed: they overwrite each other's files."""
    if len(runtimes) < 2:
        return None
    names = " and ".join(f"{name} {version}" for name, version in sorted(runtimes.items()))
    return (
        f"{names} are installed, and share one import name: run `pip uninstall -y {' '.join(sorted(runtimes))}`, then "
        "install one of them again"
    )


def _reason(settings: Settings) -> str:
    """Why matching computes in what it does."""
    if for_matching(find(settings.device)[0]) == "cuda":
        return "there is a GPU"
    if family(settings.extractor) in FP32_ONLY:
        return f"LightGlue for {settings.extractor} is too narrow for 8 bits"
    if settings.precision != "auto":
        return "as --precision says"
    return kernels.unavailable_reason() or "the processor has AVX-512 VNNI and BF16"


def _models(folder: Path, settings: Settings) -> tuple[dict[str, str], dict[str, Model | Stages]]:
    """Of the extractor that the settings name: how it stands with the models that it needs, and those that open."""
    ways: dict[str, tuple[str, Kind, Callable[[Path, Settings], Model | Stages]]] = {
        "extractor": ("extractor", "extractor", open_extractor),
        "LightGlue": ("matcher", stages_kind(settings), open_stages),
    }
    states, opened = {}, {}
    for name, (role, kind, open_model) in ways.items():
        if role not in EXTRACTORS[settings.extractor]:
            continue
        state, named = GOOD, f"{settings.extractor} {name}"
        if not model_path(folder, settings.extractor, kind).exists():
            state = NOT_MADE
        else:
            try:
                opened[named] = open_model(folder, settings)
            except ModelError as error:
                state = str(error)
        states[named] = state
    return states, opened


def _existing(folder: Path) -> Path:
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def _memory_gb() -> float | None:
    if not hasattr(os, "sysconf"):
        return None
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)


def _instructions() -> list[str]:
    """Of INSTRUCTIONS, those that the system says the processor has; nothing where it does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return [platform.machine()]
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return [name for name in INSTRUCTIONS if name in flags]


@command(app, "doctor", example="lgbatch doctor")
def doctor(models: Models = None, as_json: Json = False, *, settings: Settings) -> int:
    """Report devices, precision, models and problems of this machine. The exit status is 1 if there is a problem."""
    found = diagnose(models or default_folder(), settings)
    print(json.dumps(found.values) if as_json else found.format())
    return 1 if found.problems else 0
