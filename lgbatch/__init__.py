"""lgbatch: photos to a COLMAP model with learned features, batched on ONNX Runtime."""

from pathlib import Path

__version__ = "0.1.0"

# In a checkout export/, pipelines/, bench/ and configs/ lie beside this folder; once installed, inside it.
if not (Path(__file__).parent / "export").is_dir():
    __path__.append(str(Path(__file__).parent.parent))
