"""lgbatch: photos to a COLMAP model with learned features, batched on ONNX Runtime."""

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lgbatch.runner import LightGlueRunner, load_image, rgb_to_grayscale

__all__ = ["LightGlueRunner", "load_image", "rgb_to_grayscale"]
__version__ = "0.1.0"

# From 1.29 on ONNX Runtime reports on models and machine to its maker, on Linux too, and leaves files in the user's
# cache for that, unless this is set before it is imported. Who wants it sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# In a checkout export/, pipelines/, bench/ and configs/ lie beside this folder; once installed, inside it.
if not (Path(__file__).parent / "export").is_dir():
    __path__.append(str(Path(__file__).parent.parent))


def __getattr__(name: str) -> object:
    """What __all__ names, imported when it is first asked for: `import lgbatch` alone is quick."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("lgbatch.runner"), name)
