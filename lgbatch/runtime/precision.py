"""The precision policy of matching: which precision the staged matcher computes in, and what a slow one lacks."""

import contextlib
import sys
from pathlib import Path

from lgbatch._version import __version__
from lgbatch.config import Settings
from lgbatch.errors import ModelError
from lgbatch.kernels import library as kernels
from lgbatch.kernels.processor import gains_from_int8
from lgbatch.runtime.devices import choose_device, extraction_device, matching_device
from lgbatch.runtime.registry import FP32_ONLY, KERNEL_EXTRACTORS, STAGES_PRECISION, Kind, family

SPEED_UP = 4
"""How many times as fast as ONNX Runtime the kernels are at most: extraction by ALIKED 4.6, by DISK 4.4, matching 3.0
(measured)."""
NOTICE = "missing-kernels.txt"
"""The file in the folder of models that records what tell_missing_kernels said."""


def matching_precision(settings: Settings) -> str:
    """Return the precision of the staged matcher: fp32, fp16 or int8.

    `auto` is fp16 on a GPU, int8 on a CPU that the kernels support, and otherwise fp32. Raises ModelError if the
    requested precision is unavailable.
    """
    on_cpu = matching_device(choose_device(settings.device)) == "cpu"
    fp32_only = family(settings.extractor) in FP32_ONLY
    if settings.precision == "auto":
        fastest = "fp16" if not on_cpu else "fp32" if kernels.int8_unavailable_reason() else "int8"
        return "fp32" if fp32_only else fastest
    if settings.precision != "fp32" and fp32_only:
        raise ModelError(f"the LightGlue of {settings.extractor} supports fp32 only: omit --precision")
    if settings.precision == "fp16" and on_cpu:
        raise ModelError("--precision fp16 needs an NVIDIA GPU: use --device cuda if there is one, or omit --precision")
    if settings.precision == "int8" and not on_cpu:
        raise ModelError("--precision int8 needs the CPU: use --device cpu, or omit --precision")
    if settings.precision == "int8" and (reason := kernels.int8_unavailable_reason()):
        raise ModelError(f"--precision int8 is unavailable ({reason}): use --precision fp32")
    return settings.precision


def extractor_kind(settings: Settings) -> Kind:
    """Return the kind of model that extraction runs: on the CPU lgbatch's kernels, if there are any for the network."""
    on_cpu = extraction_device(settings.device, settings.extractor) == "cpu"
    in_kernels = on_cpu and family(settings.extractor) in KERNEL_EXTRACTORS and kernels.chosen_isa() is not None
    return "extractor-kernels" if in_kernels else "extractor"


def stages_kind(settings: Settings) -> Kind:
    """Return the kind of the staged matcher of that precision. Raises ModelError as matching_precision."""
    precision = matching_precision(settings)
    return next(kind for kind, kind_precision in STAGES_PRECISION.items() if kind_precision == precision)


def missing_kernels(settings: Settings) -> str | None:
    """Say what is slow for want of kernels that this processor could run: the cost and the way out; otherwise None."""
    of = family(settings.extractor)
    slow = []
    if of in KERNEL_EXTRACTORS and extraction_device(settings.device, settings.extractor) == "cpu":
        slow.append("extraction")
    on_cpu = matching_device(choose_device(settings.device)) == "cpu"
    if on_cpu and of not in FP32_ONLY and settings.precision == "auto" and gains_from_int8():
        slow.append("matching")
    reason = kernels.missing_reason() if slow else None
    return f"{' and '.join(slow)} could be up to {SPEED_UP} times as fast: {reason}" if reason else None


def tell_missing_kernels(folder: Path, settings: Settings) -> None:
    """Say missing_kernels on standard error, once for each version of lgbatch and folder of models.

    A file in the folder records that it was said. If it cannot be written, each run says it.
    """
    problem = missing_kernels(settings)
    if problem is None:
        return
    record, said = folder / NOTICE, f"lgbatch {__version__}: {problem}\n"
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if record.read_text(encoding="utf-8") == said:
            return
    print(f"lgbatch: {problem}. `lgbatch doctor` says it again", file=sys.stderr)
    with contextlib.suppress(OSError):
        record.write_text(said, encoding="utf-8")
