"""LightGlue in C: 8-bit weights and bfloat16 attention for CPUs with AVX-512 VNNI and BF16.

`library` loads the compiled code, `lightglue` runs exported .npz stages with it.
"""
