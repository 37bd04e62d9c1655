"""Finds, checks and opens the models."""

from lgbatch.config import Settings
from lgbatch.errors import ModelError
from lgbatch.kernels import library as kernels
from lgbatch.runtime.devices import choose, for_matching
from lgbatch.runtime.registry import FP32_ONLY, STAGES, Kind, family


def matching_precision(settings: Settings) -> str:
    """What the staged matcher is to compute in: `auto` is fp16 on a GPU and int8 on a CPU where that is fast, and
    where neither is good, or not to be had, fp32.

    Raises ModelError where this precision is not to be had.
    """
    on_cpu = for_matching(choose(settings.device)) == "cpu"
    fp32_only = family(settings.extractor) in FP32_ONLY
    if settings.precision == "auto":
        quick = "fp16" if not on_cpu else "fp32" if kernels.unavailable_reason() else "int8"
        return "fp32" if fp32_only else quick
    if settings.precision != "fp32" and fp32_only:
        raise ModelError(f"the LightGlue of {settings.extractor} runs in fp32 alone: leave --precision out")
    if settings.precision == "fp16" and on_cpu:
        raise ModelError(
            "--precision fp16 is for a GPU: use --device cuda where there is one, or leave --precision out"
        )
    if settings.precision == "int8" and not on_cpu:
        raise ModelError("--precision int8 is for the CPU: use --device cpu, or leave --precision out")
    if settings.precision == "int8" and (lacking := kernels.unavailable_reason()):
        raise ModelError(f"--precision int8 cannot be had ({lacking}): use --precision fp32")
    return settings.precision


def stages_kind(settings: Settings) -> Kind:
    """Which model the staged matcher is; raises as matching_precision."""
    precision = matching_precision(settings)
    return next(kind for kind, of_kind in STAGES.items() if of_kind == precision)
