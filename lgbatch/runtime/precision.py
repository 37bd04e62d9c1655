"""The precision policy of matching: which precision the staged matcher computes in, and what a slow one lacks."""

import contextlib
import sys
from pathlib import Path

from lgbatch._version import __version__
from lgbatch.config import Settings
from lgbatch.errors import ModelError
from lgbatch.kernels import library as kernels
from lgbatch.runtime.devices import choose_device, matching_device
from lgbatch.runtime.registry import FP32_ONLY, STAGES_PRECISION, Kind, family

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


def missing_kernels(settings: Settings) -> str | None:
    """Why matching runs in fp32 on a processor that could run it in int8: the cost and the way out; otherwise None."""
    on_cpu = matching_device(choose_device(settings.device)) == "cpu"
    if not on_cpu or settings.precision != "auto" or family(settings.extractor) in FP32_ONLY:
        return None
    reason = kernels.missing_reason()
    return f"matching takes up to 3 times as long as it could: {reason}" if reason else None


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
