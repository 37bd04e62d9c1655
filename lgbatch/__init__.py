"""lgbatch: photos to a COLMAP model with learned features, batched on ONNX Runtime."""

import os
from pathlib import Path

__version__ = "0.1.0"

# From 1.29 on ONNX Runtime reports on models and machine to its maker, on Linux too, and leaves files in the user's
# cache for that, unless this is set before it is imported. Who wants it sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# In a checkout export/, pipelines/, bench/ and configs/ lie beside this folder; once installed, inside it.
if not (Path(__file__).parent / "export").is_dir():
    __path__.append(str(Path(__file__).parent.parent))
