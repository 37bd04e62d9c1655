"""The precision policy of matching: which precision the staged matcher computes in."""

from lgbatch.config import Settings
from lgbatch.errors import ModelError
from lgbatch.kernels import library as kernels
from lgbatch.runtime.devices import choose_device, matching_device
from lgbatch.runtime.registry import FP32_ONLY, STAGES_PRECISION, Kind, family


def matching_precision(settings: Settings) -> str:
    """Return the precision of the staged matcher: fp32, fp16 or int8.

    `auto` is fp16 on a GPU, int8 on a CPU that the kernels support, and otherwise fp32. Raises ModelError if the
    requested precision is unavailable.
    """
    on_cpu = matching_device(choose_device(settings.device)) == "cpu"
    fp32_only = family(settings.extractor) in FP32_ONLY
    if settings.precision == "auto":
        fastest = "fp16" if not on_cpu else "fp32" if kernels.unavailable_reason() else "int8"
        return "fp32" if fp32_only else fastest
    if settings.precision != "fp32" and fp32_only:
        raise ModelError(f"the LightGlue of {settings.extractor} supports fp32 only: omit --precision")
    if settings.precision == "fp16" and on_cpu:
        raise ModelError("--precision fp16 needs an NVIDIA GPU: use --device cuda if there is one, or omit --precision")
    if settings.precision == "int8" and not on_cpu:
        raise ModelError("--precision int8 needs the CPU: use --device cpu, or omit --precision")
    if settings.precision == "int8" and (reason := kernels.unavailable_reason()):
        raise ModelError(f"--precision int8 is unavailable ({reason}): use --precision fp32")
    return settings.precision


def stages_kind(settings: Settings) -> Kind:
    """Return the kind of the staged matcher of that precision. Raises ModelError as matching_precision."""
    precision = matching_precision(settings)
    return next(kind for kind, kind_precision in STAGES_PRECISION.items() if kind_precision == precision)
