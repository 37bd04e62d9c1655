"""The extract stage: local features of photos, by a network on ONNX Runtime or by OpenCV's SIFT, into features.h5."""
