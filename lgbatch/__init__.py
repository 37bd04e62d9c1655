"""lgbatch: photos to a COLMAP model with learned features, batched on ONNX Runtime."""

import importlib
import os
from typing import TYPE_CHECKING

from lgbatch._version import __version__

if TYPE_CHECKING:
    from lgbatch.matching.runner import LightGlueRunner, load_image, rgb_to_grayscale

__all__ = ["LightGlueRunner", "__version__", "load_image", "rgb_to_grayscale"]

# ONNX Runtime 1.29 and later send telemetry unless this is set before the import (on Windows: see runtime/devices.py).
# A value of 0 opts in.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def __getattr__(name: str) -> object:
    """Import a public name on first use, so that `import lgbatch` alone is fast."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("lgbatch.matching.runner"), name)
