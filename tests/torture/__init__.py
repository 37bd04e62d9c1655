"""Torture tests: kills, failing disks, corrupt files and fuzzing. `make torture` runs them at length.

Each test runs whole lgbatch processes and checks their files from outside, with plain h5py and with sqlite3 in a
process of its own. Small ONNX models that find painted points (harness/stand_in_models.py, harness/scene.py) replace
the networks; all other code is the real code.

harness/    runs the commands, injects faults, reads what they leave
corpus/     the corrupt and unusual files, and the fuzzer
"""
