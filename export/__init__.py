"""Export: pretrained PyTorch weights to ONNX models, each compared with a PyTorch reference.

Importing this package, or `lgbatch.export.models`, does not import torch. Exporting needs
`pip install 'lgbatch[export]'`.
"""
