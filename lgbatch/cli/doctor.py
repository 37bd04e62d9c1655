"""The command `lgbatch doctor`: devices, precision, models and problems of this machine."""

import json
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lgbatch.cli.options import Json, Models, command, new_app
from lgbatch.config import Settings
from lgbatch.errors import InputError, ModelError
from lgbatch.export.extractors import EXTRACTORS
from lgbatch.kernels import library as kernels
from lgbatch.kernels.processor import features
from lgbatch.runtime.cuda import driver_version, gpus
from lgbatch.runtime.devices import PROVIDERS, matching_device, resolve_device, unavailable_reason, unused_gpu
from lgbatch.runtime.environment import available_cores, installed_versions, total_memory, versions
from lgbatch.runtime.models import Model, Stages, open_extractor, open_stages
from lgbatch.runtime.packages import installation, pycolmap_problem, runtime_conflict
from lgbatch.runtime.placement import Placement, describe, placement
from lgbatch.runtime.precision import extractor_kind, matching_precision, missing_kernels, stages_kind
from lgbatch.runtime.registry import FP32_ONLY, KERNEL_EXTRACTORS, Kind, default_folder, family, model_path
from lgbatch.runtime.session import find_cuda_libraries

app = new_app()

OPTIONAL_PACKAGES = ("torch", "onnx", "onnxscript", "scikit-image")
"""Packages to report besides those in a summary."""
INSTRUCTIONS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimddp", "i8mm", "bf16")
"""CPU features to report, as in /proc/cpuinfo."""
GOOD, NOT_EXPORTED = "good", "not made yet"
"""States of a model; any other state is the message of a ModelError."""
MIN_FREE_GB = 2.0
"""Less free disk space is a problem."""


@dataclass(frozen=True)
class Diagnosis:
    """The findings of `lgbatch doctor` as plain values."""

    values: dict[str, Any]

    @property
    def problems(self) -> list[str]:
        """One line per problem, with the way out."""
        return list(self.values["problems"])

    def format(self) -> str:
        """Format the findings as lines for the terminal."""
        v = self.values
        matching = f"{v['precision']} on {v['matching_device']}: {v['reason']}" if v["reason"] else "unavailable"
        lines = [
            "versions    " + ", ".join(f"{name} {version}" for name, version in v["versions"].items()),
            f"machine     {self._format_machine()}",
            "install     {}: {}".format(*v["installation"]),
            f"COLMAP      {self._format_colmap()}",
            *(f"--device    {name}: {reason or 'available'}" for name, reason in v["devices"].items()),
            f"extraction  {v['extraction_precision']} on {v['device']}"
            + (f": {v['extraction_reason']}" if v["extraction_reason"] else ""),
            f"matching    {matching}",
            f"kernels     {', '.join(v['kernels']) or 'not installed'}",
            f"models      {v['models_folder']}, {v['free_gb']:.1f} GB of disk space free",
            *(f"            {self._format_model(name)}" for name in v["models"]),
            *(f"placement   {name}: {describe(found)}" for name, found in v["placement"].items()),
            *(f"problem     {problem}" for problem in v["problems"] or ["none"]),
        ]
        return "\n".join(lines)

    def _format_machine(self) -> str:
        v = self.values
        instructions = f", {' '.join(v['instructions'])}" if v["instructions"] else ""
        driver = f" (driver {v['driver']})" if v["driver"] else ""
        return (
            f"{v['cores']} cores, {v['memory_gb']} GB of memory{instructions}; "
            f"NVIDIA GPUs: {', '.join(v['gpus']) or 'none'}{driver}"
        )

    def _format_colmap(self) -> str:
        cuda = self.values["pycolmap_cuda"]
        return "not available" if cuda is None else f"pycolmap {'with' if cuda else 'without'} CUDA"

    def _format_model(self, name: str) -> str:
        weights = self.values["weights"].get(name)
        text = f"{name}: {self.values['models'][name]}"
        return f"{text}, exported from weights with SHA-256 {weights}" if weights else text


def diagnose(models: Path, settings: Settings) -> Diagnosis:
    """Inspect packages, processor, GPU, and the models in a folder."""
    find_cuda_libraries()
    problems = [problem for problem in (runtime_conflict(), pycolmap_problem()) if problem]
    device, unavailable = resolve_device(settings.device)
    if unavailable:
        problems.append(f"--device {settings.device}: {unavailable}")
    precision = reason = extraction_reason = None
    extraction_precision = "fp32"
    try:
        precision, reason = matching_precision(settings), _precision_reason(settings)
        if extractor_kind(settings) == "extractor-kernels":
            extraction_precision, extraction_reason = KERNEL_EXTRACTORS[family(settings.extractor)], _kernels_run()
        problems += [missing] if (missing := missing_kernels(settings)) else []
    except (InputError, ModelError) as error:
        problems.append(str(error))
    if unused := unused_gpu(settings.device):
        problems.append(unused)
    free = shutil.disk_usage(_existing(models)).free / 1e9
    if free < MIN_FREE_GB:
        problems.append(f"only {free:.1f} GB of disk space are free at {models}: free some, or use another --models")
    states, opened = _open_models(models, settings) if reason else ({}, {})
    problems += [f"{name}: {state}" for name, state in states.items() if state not in (GOOD, NOT_EXPORTED)]
    extractor, memory = opened.get(f"{settings.extractor} extractor"), total_memory()
    return Diagnosis(
        {
            "versions": versions() | installed_versions(OPTIONAL_PACKAGES),
            "cores": available_cores(),
            "memory_gb": None if memory is None else round(memory / 1e9, 1),
            "instructions": _instructions(),
            "gpus": list(gpus()),
            "driver": driver_version(),
            "installation": installation(gpu=bool(gpus())),
            "pycolmap_cuda": _pycolmap_cuda(),
            "devices": {name: unavailable_reason(name) for name in PROVIDERS},
            "device": extractor.device if extractor else device,
            "matching_device": matching_device(device),
            "extraction_precision": extraction_precision,
            "extraction_reason": extraction_reason,
            "precision": precision,
            "reason": reason,
            "kernels": kernels.available_isas(),
            "models_folder": str(models),
            "free_gb": round(free, 1),
            "models": states,
            "weights": {name: model.weights for name, model in opened.items()},
            "placement": {name: _placement(model) for name, model in opened.items() if model.device != "cpu"},
            "problems": problems,
        }
    )


def _pycolmap_cuda() -> bool | None:
    """Whether pycolmap was built with CUDA; None if it cannot be used."""
    if pycolmap_problem():
        return None
    import pycolmap

    return bool(pycolmap.has_cuda)


def _precision_reason(settings: Settings) -> str:
    """Why matching uses its precision."""
    if matching_device(resolve_device(settings.device)[0]) == "cuda":
        return "there is a GPU"
    if family(settings.extractor) in FP32_ONLY:
        return f"LightGlue for {settings.extractor} is too narrow for 8 bits"
    if settings.precision != "auto":
        return "as requested by --precision"
    return kernels.int8_unavailable_reason() or _kernels_run()


def _kernels_run() -> str:
    return f"the kernels for {kernels.chosen_isa()} run here"


def _open_models(folder: Path, settings: Settings) -> tuple[dict[str, str], dict[str, Model | Stages]]:
    """Open the models of settings.extractor. Returns the state of each, and those that could be opened."""
    openers: dict[str, tuple[str, Kind, Callable[[Path, Settings], Model | Stages]]] = {
        "extractor": ("extractor", extractor_kind(settings), open_extractor),
        "LightGlue": ("matcher", stages_kind(settings), open_stages),
    }
    states, opened = {}, {}
    for title, (role, kind, open_model) in openers.items():
        if role not in EXTRACTORS[settings.extractor]:
            continue
        name = f"{settings.extractor} {title}"
        states[name] = NOT_EXPORTED
        if model_path(folder, settings.extractor, kind).exists():
            try:
                opened[name] = open_model(folder, settings)
                states[name] = GOOD
            except ModelError as error:
                states[name] = str(error)
    return states, opened


def _placement(model: Model | Stages) -> Placement:
    """Where the nodes of an opened model run."""
    parts = [model] if isinstance(model, Model) else model.models.values()
    return placement([part.path for part in parts], model.device)


def _existing(folder: Path) -> Path:
    """The folder, or its nearest parent that exists."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def _instructions() -> list[str]:
    """Those of INSTRUCTIONS that the processor has; the name of its architecture if that cannot be told."""
    return [name for name in INSTRUCTIONS if name in features()] if features() else [platform.machine()]


@command(app, "doctor", example="lgbatch doctor")
def doctor(models: Models = None, as_json: Json = False, *, settings: Settings) -> int:
    """Report what this machine uses and what it lacks.

    Lists devices, precision, models and problems. The exit status is 1 if there is a problem.
    """
    diagnosis = diagnose(models or default_folder(), settings)
    print(json.dumps(diagnosis.values) if as_json else diagnosis.format())
    return 1 if diagnosis.problems else 0
