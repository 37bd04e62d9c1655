"""Models and where they run: the registry of models, devices and precision, sessions of ONNX Runtime."""
