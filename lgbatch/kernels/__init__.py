"""Networks in C, for CPUs: LightGlue in 8 bits, DISK in 16 bits, ALIKED in single precision.

`library` loads the compiled code. `lightglue`, `disk` and `aliked` run exported .npz files with it.
"""
