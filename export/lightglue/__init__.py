"""LightGlue for the export: its blocks as PyTorch modules, the stages built from them, and their ONNX graphs."""
